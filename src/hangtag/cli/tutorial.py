"""The lesson "Basic image classification", step by step, on the real images.

Text, code and output of each step in order; `learn.py` prints them. It uses the library as any user would.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hangtag.data.labelled_images import LabelledImages
from hangtag.reports import figures
from hangtag.training.classifier import Classifier
from hangtag.training.engine.loop import Epoch
from hangtag.training.engine.networks import layers, parameter_count

__all__ = ["Section", "walk"]


@dataclass(frozen=True)
class Section:
    """One step: a heading, one or two sentences, the Python code, what it prints, and the figure it draws."""

    title: str
    text: str
    code: str
    output: str = ""
    figure: Path | None = None


def walk(data: LabelledImages, classifier: Classifier, out: Path) -> Iterator[Section | Epoch]:
    """The steps of the lesson, and epochs while it trains; figures are saved in `out`."""
    yield from _look(data, out)
    yield from _train(data, classifier)
    yield from _use(data, classifier, out)


def _look(data: LabelledImages, out: Path) -> Iterator[Section]:
    names = data.class_names
    yield Section(
        "1. The data",
        "70,000 small grey images of clothes, each with one of ten labels: 60,000 for training, 10,000 for testing. "
        "Training never uses the test images.",
        'data = hangtag.read("fashion-mnist")\n'
        "data.train.images.shape, len(data.train.labels), data.train.labels\n"
        "data.test.images.shape, len(data.test.labels)",
        f"{data.train.images.shape}, {len(data.train.labels)}, {data.train.labels}\n"
        f"{data.test.images.shape}, {len(data.test.labels)}\n"
        + "\n".join(f"{index}  {name}" for index, name in enumerate(names)),
    )
    yield Section(
        "2. Look at one image",
        "Pixels are whole numbers from 0 to 255. hangtag scales them to 0-1 inside the model, so training and use "
        "cannot differ.",
        "hangtag.figures.one_image(data.train.images[0])",
        figure=_save(out / "1-one-image.png", figures.one_image(data.train.images[0])),
    )
    grid = figures.image_grid(data.train.images[:25], data.train.labels[:25], names)
    yield Section(
        "3. Look at 25 images with their labels",
        "Before training, check that the labels match the images.",
        "hangtag.figures.image_grid(data.train.images[:25], data.train.labels[:25], data.class_names)",
        figure=_save(out / "2-grid.png", grid),
    )


def _train(data: LabelledImages, classifier: Classifier) -> Iterator[Section | Epoch]:
    yield Section(
        "4. Build and train the model",
        "The network flattens the 28x28 pixels and has a layer of 128 neurons and a layer of 10 logits, one per class. "
        "Adam minimises the cross-entropy in 10 passes over the training images.",
        'clf = hangtag.ImageClassifier(recipe="tutorial").fit(data.train)',
    )
    yield from classifier.fit_epochs(data)
    rows = layers(classifier.network_, data.spec)
    table = [f"{row.name:<10} {row.kind:<10} {row.shape!s:<10} {row.parameters:>9,}" for row in rows]
    total = parameter_count(classifier.network_)
    yield Section(
        "5. What was trained",
        "Training set the value of each parameter.",
        "hangtag model tutorial     # on the command line",
        "\n".join([*table, f"{'total':<32} {total:>9,}"]),
    )
    evaluation = classifier.evaluate(data.test)
    yield Section(
        "6. How good is it?",
        evaluation.gap_in_words,
        "print(clf.evaluate(data.test))",
        f"Test accuracy: {evaluation.accuracy:.4f} "
        f"(95% interval {evaluation.accuracy_interval[0]:.4f} to {evaluation.accuracy_interval[1]:.4f})\n"
        f"Test loss:     {evaluation.loss:.4f}",
    )


def _use(data: LabelledImages, classifier: Classifier, out: Path) -> Iterator[Section]:
    test, names = data.test, data.class_names
    rows = classifier.predict_proba(test.images)
    best = int(rows[0].argmax())
    yield Section(
        "7. Make predictions",
        "Softmax turns the ten logits into ten probabilities that sum to 1; the largest is the answer.",
        "probabilities = clf.predict_proba(data.test.images)\n"
        "probabilities[0], probabilities[0].argmax(), data.test.labels[0]",
        "\n".join(f"{value:9.6f}  {name}" for value, name in zip(rows[0], names, strict=True))
        + f"\nanswer: {best} ({names[best]}); true label: {test.labels[0]} ({names[test.labels[0]]})",
    )
    for number, index in ((3, 0), (4, 12)):
        figure = figures.answer(test.images[index], rows[index], int(test.labels[index]), names)
        yield Section(
            f"{number + 5}. Check test image {index}",
            "Blue is the true class, red a wrong answer. A confident answer can be wrong.",
            f"hangtag.figures.answer(data.test.images[{index}], probabilities[{index}], "
            f"data.test.labels[{index}], data.class_names)",
            figure=_save(out / f"{number}-answer-{index}.png", figure),
        )
    figure = figures.answers(test.images[:15], rows[:15], test.labels[:15], names)
    yield Section(
        "10. Check fifteen test images",
        "Look at the red answers: which classes does the model confuse?",
        "hangtag.figures.answers(data.test.images[:15], probabilities[:15], data.test.labels[:15], data.class_names)",
        figure=_save(out / "5-answers.png", figure),
    )
    answer = classifier.predictor_(test.images[1])
    figure = figures.probability_bars(rows[1], names)
    yield Section(
        "11. Use the model on one image",
        "The model file contains everything: scaling, network and class names. It does not need PyTorch.",
        'clf.save("clothes.onnx")\ntag = hangtag.load("clothes.onnx")\ntag(data.test.images[1])',
        f"{answer}",
        _save(out / "6-bars.png", figure),
    )


def _save(path: Path, figure: figures.ReportFigure) -> Path:
    figures.save(figure, path)
    return path
