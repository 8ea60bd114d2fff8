"""Recipe transfer: a frozen backbone and a linear head, in one file that answers as the network does."""

import gc
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import load

from hangtag import ImageClassifier
from hangtag.data.labelled_images import from_arrays
from hangtag.errors import UsageError
from hangtag.pictures import Images, ImageSpec
from hangtag.training import transfer
from hangtag.training.engine.backbones import find_backbone
from hangtag.training.engine.frozen import for_size
from hangtag.training.engine.inference import extract_features
from hangtag.training.run import _weights

SIDE = 12


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    """The path of a small random network that takes images of 12x12 pixels."""
    kernel = np.random.default_rng(0).normal(size=(24, 3, 3, 3)).astype(np.float32)
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 20]>
        g (float[N, 3, {SIDE}, {SIDE}] x) => (float[N, 24] y)
        {{ m = Conv (x, kernel) r = Relu (m) p = GlobalAveragePool (r) y = Flatten (p) }}""")
    model.graph.initializer.append(numpy_helper.from_array(kernel, "kernel"))
    path = tmp_path / "small.onnx"
    path.write_bytes(model.SerializeToString())
    return f"{path}@0..1"


def coloured(count: int = 60, side: int = SIDE, seed: int = 0) -> tuple[Images, NDArray[np.int64]]:
    """Noisy images, each of the three classes brighter in one channel."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = random.integers(0, 120, (count, side, side, 3))
    images[np.arange(count), :, :, labels] += 60
    return images.astype(np.uint8), labels


def fitted(backbone: str, images: Images, labels: Any, **more: Any) -> ImageClassifier:
    settings = {"backbone": backbone} | more.pop("settings", {})
    return ImageClassifier("transfer", settings=settings, **more).fit(images, labels)


@pytest.mark.parametrize("side", [SIDE, 20])
@pytest.mark.parametrize("grey", [False, True])
def test_the_file_holds_the_backbone_and_answers_as_the_network_does(backbone: str, side: int, grey: bool) -> None:
    images, labels = coloured(side=side)
    images = images[..., 0] if grey else images
    classifier = fitted(backbone, images, labels)

    answers = classifier.predictor_.outputs(images, "uncalibrated", "embedding", "maps", "map_weights")
    features = extract_features(classifier.network_, images)

    probabilities = torch.from_numpy(features.logits).softmax(dim=1).numpy()
    np.testing.assert_allclose(answers["uncalibrated"], probabilities, atol=1e-4)
    np.testing.assert_allclose(answers["embedding"], features.embedding, atol=1e-4)
    # The maps, weighted for the predicted class, add up to its logit minus the mean logit, apart from the biases.
    weighted = (answers["maps"][:, 0].mean(axis=(2, 3)) * answers["map_weights"]).sum(axis=1)
    raw = features.logits - classifier.network_.logits.bias.detach().numpy()
    np.testing.assert_allclose(weighted, (raw - raw.mean(axis=1, keepdims=True))[
        np.arange(len(raw)), features.logits.argmax(axis=1)], atol=1e-3)  # fmt: skip
    assert classifier.metadata().pooling == "mean"
    assert classifier.metadata().backbone == find_backbone(backbone).record


def test_classes_are_learned_and_the_head_alone_is_saved_and_pickled(backbone: str) -> None:
    classifier = fitted(backbone, *coloured())
    images, labels = coloured(90, seed=1)

    again = pickle.loads(pickle.dumps(classifier))

    assert classifier.score(images, labels) > 0.9
    assert set(load(_weights(classifier.module_))) == {"logits.weight", "logits.bias"}
    np.testing.assert_array_equal(again.predict_proba(images), classifier.predict_proba(images))
    np.testing.assert_allclose(
        extract_features(again.network_, images).logits, extract_features(classifier.network_, images).logits, atol=1e-3
    )


def test_the_layers_and_weights_of_the_backbone_are_counted(backbone: str) -> None:
    classifier = fitted(backbone, *coloured())

    rows = [(row.name, row.shape, row.parameters) for row in classifier.summary().layers]

    assert rows == [("backbone", (24,), find_backbone(backbone).parameters), ("logits", (3,), 24 * 3 + 3)]
    assert classifier.metadata().parameters == sum(row[2] for row in rows)


def test_images_of_another_size_are_resized_in_the_backbone(backbone: str) -> None:
    images = np.full((2, 30, 20, 3), [[[[200, 100, 50]]]], np.uint8)  # of one colour: equal at every size
    small = np.full((2, SIDE, SIDE, 3), [[[[200, 100, 50]]]], np.uint8)
    original = transfer.build_frozen(backbone, ImageSpec(SIDE, SIDE, 3), 3)
    resizing = transfer.build_frozen(backbone, ImageSpec(30, 20, 3), 3)

    assert for_size(find_backbone(backbone), ImageSpec(SIDE, SIDE, 3)).model == find_backbone(backbone).model
    np.testing.assert_allclose(
        extract_features(resizing, images).embedding, extract_features(original, small).embedding, rtol=1e-4
    )


def test_each_image_is_computed_once(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    whole = transfer.cached_features.__globals__["compute_features"]

    def counted(of: Any, images: Any, *more: Any) -> Any:
        computed.append(len(images))
        return whole(of, images, *more)

    monkeypatch.setitem(transfer.cached_features.__globals__, "compute_features", counted)
    monkeypatch.setattr(transfer, "compute_features", counted)
    images, labels = coloured()
    classifier = fitted(backbone, images, labels)
    classifier.to_bytes()
    classifier.neighbours()
    fitted(backbone, images[:30], labels[:30]).to_bytes()

    assert computed == [60]


def test_weights_and_balance_reach_the_head(backbone: str) -> None:
    images, labels = coloured()
    images = np.random.default_rng(0).integers(0, 256, images.shape).astype(np.uint8)  # nothing to learn
    heavy = np.where(labels == 2, 50.0, 1.0)

    plain, weighted = (
        ImageClassifier("transfer", settings={"backbone": backbone}, folds=0).fit(images, labels, sample_weight=given)
        for given in (None, heavy)
    )
    share, own = (
        torch.from_numpy(extract_features(each.network_, images).logits).softmax(dim=1).mean(dim=0)[2]
        for each in (plain, weighted)
    )

    assert own > share + 0.2


def test_classes_of_5_and_5000_images_are_both_recognised(backbone: str) -> None:
    images, labels = coloured(7497)
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == 0)[:5], np.flatnonzero(labels > 0)[:4998]]))
    classifier = fitted(backbone, images[chosen], np.minimum(labels[chosen], 1))
    fresh, truth = coloured(60, seed=1)

    assert any("imbalanced (1 4,498, 0 4 images)" in note for note in classifier.notes_)
    found = classifier.predict(fresh)
    assert (found[truth == 0] == 0).mean() > 0.8 and (found[truth > 0] == 1).mean() > 0.8


def test_equal_seeds_give_equal_files(backbone: str) -> None:
    first, second = (fitted(backbone, *coloured(), seed=4).network_.logits.weight for _ in range(2))

    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 3}, "does not use epochs"),
        ({"settings": {"weight_decay": 0.1, "random_shift": 1}}, "does not use weight_decay, random_shift"),
        ({"model": torch.nn.Flatten()}, "takes no model, loss or augmentation"),
        ({"recipe": "fast", "settings": {"backbone": "efficientnet-lite0"}}, "takes no backbone"),
        ({"settings": {"backbone": ""}}, "needs a backbone"),
    ],
)
def test_settings_of_a_training_from_nothing_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ImageClassifier(**{"recipe": "transfer"} | given).chosen_recipe()


def test_progress_is_reported_while_features_are_computed(backbone: str) -> None:
    data = from_arrays(*coloured())
    epochs = list(ImageClassifier("transfer", settings={"backbone": backbone}).fit_epochs(data))

    *before, last = epochs
    assert all((not epoch.finished, epoch.doing, epoch.steps) == (True, "computing features", 60) for epoch in before)
    assert (last.finished, last.number, last.epochs) == (True, 1, 1)
    assert str(last).startswith("fitted a linear head to the features of ")


def test_stopping_before_there_is_a_head_ends_the_training(backbone: str) -> None:
    epochs: Iterator[Any] = ImageClassifier("transfer", settings={"backbone": backbone}).fit_epochs(
        from_arrays(*coloured()), stop=lambda: True
    )

    with pytest.raises(KeyboardInterrupt):
        list(epochs)


def test_a_backbone_is_recorded_with_its_folder_and_the_model_file_names_only_the_file(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    classifier = fitted("small.onnx@0..1", *coloured())

    assert classifier.chosen_recipe().backbone == backbone
    assert classifier.metadata().recipe["backbone"] == "small.onnx"


def test_embeddings_are_forgotten_with_the_last_network(backbone: str) -> None:
    classifier = fitted(backbone, *coloured())
    known = list(transfer._KNOWN.values())
    assert [len(each) for each in known] == [60]

    del classifier, known
    gc.collect()

    assert not transfer._KNOWN
