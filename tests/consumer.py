"""A program that uses every public name as its types promise; `tests/test_typing.py` checks it strictly, from outside.

It is never run.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import hangtag
from hangtag import errors, recipes


def use(*values: object) -> None:
    """Stands for what a program does with these values."""


def reading() -> hangtag.LabelledImages:
    data = hangtag.read("fashion-mnist")
    assert_type(data, hangtag.LabelledImages)
    own = hangtag.read(Path("photos"), size=(32, 48), fit="pad", colour=True, choose=None)
    hangtag.read((np.zeros((4, 8, 8), np.uint8), ["a", "b", "a", "b"]))
    assert_type(own[0], hangtag.LabelledImage)
    assert_type(own[0].label, str)
    assert_type(own[10:20], hangtag.LabelledImages)
    assert_type(own[np.arange(3)], hangtag.LabelledImages)
    assert_type(own[[3, 1]], hangtag.LabelledImages)
    assert_type(own["test"], hangtag.LabelledImages)
    names = {label: image.shape for image, label in own}
    shapes: dict[str, tuple[int, ...]] = names
    assert_type(len(data.train), int)
    use(shapes)
    assert_type(data.train.images, NDArray[np.uint8])
    assert_type(data.labels, NDArray[np.int64])
    return data


def training(data: hangtag.LabelledImages) -> hangtag.ImageClassifier:
    classifier = hangtag.ImageClassifier(recipe="quick", epochs=2, seed=1)
    recipe: hangtag.Recipe = recipes.find_recipe("fast", epochs=3)
    assert_type(recipes.RECIPES["fast"].epochs, int)
    fitted = hangtag.ImageClassifier(recipe=recipe).fit(data.train)
    assert_type(fitted, hangtag.ImageClassifier)
    epochs: Iterator[hangtag.Epoch] = classifier.fit_epochs(data.train)
    losses = [epoch.loss for epoch in epochs]
    assert_type(losses, list[float])
    assert_type(fitted.predict_proba(data.test), NDArray[np.float32])
    assert_type(fitted.evaluate(data.test), hangtag.Evaluation)
    assert_type(fitted.score(data.test.images, data.test.labels), float)
    use(fitted.get_params(), fitted.set_params(epochs=3).predict(["shoe.jpg"]))
    fitted.save("clothes.onnx")
    return fitted


def predicting(fitted: hangtag.ImageClassifier) -> None:
    tag = hangtag.load("clothes.onnx", coverage=0.9, threads=2)
    assert_type(tag, hangtag.Predictor)
    for row in hangtag.predict(tag, "photos/", "more.zip", top=2, workers=1):
        assert_type(row, hangtag.FileAnswer)
        use(row.file, row.answer.label)
    assert_type(tag("shoe.jpg"), hangtag.Answer)
    files = sorted(Path("photos").glob("*.jpg"))
    assert_type(tag.many(files), list[hangtag.Answer])
    for answer in tag.many(path.read_bytes() for path in files):
        if answer.label is not None:
            use(answer.label.upper(), answer.sure, answer.prediction_set)
        else:
            use(answer.error)
    assert_type(tag.predict([io.BytesIO(b""), "shoe.jpg"]), NDArray[np.object_])
    assert_type(tag.predict_proba(np.zeros((3, 28, 28), np.uint8)), NDArray[np.float32])
    assert_type(tag.outputs(files, "logits", "embedding")["embedding"], NDArray[np.float32])
    careful = tag.with_policy(hangtag.AnswerPolicy(coverage=0.99, target_accuracy=0.98))
    spec: hangtag.ImageSpec = careful.spec
    use(spec.height, careful.class_names, fitted.predictor_.fingerprint)


def judging(data: hangtag.LabelledImages, fitted: hangtag.ImageClassifier) -> None:
    run = hangtag.find_run("last")
    assert_type(run, hangtag.Run)
    assert_type(hangtag.evaluate(run), hangtag.Judgement)
    assert_type(hangtag.evaluate(fitted, data).evaluation.accuracy, float)
    assert_type(hangtag.compare("runs/a", fitted, data), hangtag.Comparison)
    assert_type(hangtag.compare(run, Path("runs/b")).p, float)
    assert_type(hangtag.stress(fitted, data, images=100), hangtag.Stress)
    assert_type(hangtag.check(run, "expected"), hangtag.Check)
    found = hangtag.audit(data, labels=False)
    assert_type(found, hangtag.Audit)
    finding: hangtag.Finding = found.findings[0]
    use(finding.message, hangtag.compare(run, run, data).to_json())
    assert_type(hangtag.tune(data, "quick", {"learning_rate": (1e-3, 1e-1)}, trials=4), hangtag.Run)
    hangtag.figures.save(hangtag.figures.one_image(data.images[0]), Path("one.png"))


def failing() -> None:
    try:
        hangtag.load("missing.onnx")
    except errors.ArtifactError as error:
        use(error.message, error.hint)
    except hangtag.HangtagError as error:
        use(error.to_json())


use(hangtag.__version__)
