"""Fine-tuning: the last blocks of a backbone are trained with the head, and kept only if held-out images say so.

The backbone is a real EfficientNet-Lite with random weights, on tiny images, so that a step takes milliseconds.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hangtag.data.labelled_images import from_arrays
from hangtag.errors import UsageError
from hangtag.pictures import ImageSpec
from hangtag.training import transfer
from hangtag.training.classifier import Classifier
from hangtag.training.engine.backbones import Backbone
from hangtag.training.engine.fine_tuning import TunedNetwork, as_frozen, compare
from hangtag.training.engine.frozen import FrozenNetwork, for_size
from hangtag.training.engine.inference import extract_features
from hangtag.training.engine.recipes import FINE_TUNING, find_recipe
from hangtag.training.head import loss_and_accuracy
from toys import shapes, tiny_backbone

SIDE = 32


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture(autouse=True)
def _found(backbone: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(transfer, "find_backbone", lambda name: backbone)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def images(count: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_only_the_last_blocks_and_the_head_are_trained_and_statistics_stay(backbone: Backbone) -> None:
    tuned = TunedNetwork(backbone, FrozenNetwork(backbone, 3), whole=False)
    before = {name: value.clone() for name, value in tuned.state_dict().items()}

    for _ in transfer.train(tuned, images(8), np.arange(8) % 3, replace(FINE_TUNING, epochs=1, batch_size=4), 0):
        pass

    changed = {name for name, value in tuned.state_dict().items() if not torch.equal(value, before[name])}
    assert {"logits.weight", "network._conv_head.weight"} <= changed
    assert any(name.startswith("network._blocks.11.") for name in changed)
    assert not any(name.startswith("network._blocks.10.") for name in changed)
    assert not any("running" in name or "tracked" in name for name in changed)
    assert all(each.requires_grad for each in TunedNetwork(backbone, FrozenNetwork(backbone, 3), True).parameters())


@pytest.mark.parametrize("spec", [ImageSpec(SIDE, SIDE, 3), ImageSpec(20, 28, 1)])
def test_the_result_is_a_frozen_network_that_answers_as_the_trained_one(backbone: Backbone, spec: ImageSpec) -> None:
    tuned = TunedNetwork(backbone, FrozenNetwork(for_size(backbone, spec), 3), whole=False)
    with torch.no_grad():
        for weight in tuned.network._blocks[-1].parameters():
            weight.add_(0.05)
        tuned.logits.weight.normal_()
    pixels = np.random.default_rng(0).integers(0, 256, (4, *spec.shape), dtype=np.uint8)

    frozen = as_frozen(tuned, backbone, spec, pixels)  # raises an error if they disagree

    assert frozen.record.fine_tuned and not backbone.record.fine_tuned
    assert "backbone.network._conv_head.weight" in frozen.state_dict()  # saved with the run


def test_a_network_is_better_only_by_more_than_a_standard_error() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    good, noise = np.eye(3, dtype=np.float32)[labels] * 2, random.normal(size=(120, 3)).astype(np.float32)

    assert compare(good + noise, noise, labels)[0]
    assert not compare(noise, good + noise, labels)[0]
    assert not compare(good + noise, good + noise, labels)[0]
    assert compare(good[:5], noise[:5], labels[:5]) == (False, "a comparison takes 10 held-out images, there are 5")
    assert "on 120 held-out images" in compare(good + noise, noise, labels)[1]


def test_fine_tuning_is_chosen_on_held_out_images_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = shapes(40)
    data = from_arrays(np.repeat(pixels[..., None], 3, axis=3) if pixels.ndim == 3 else pixels, labels)
    models = []
    for verdict in (True, False):
        monkeypatch.setattr(transfer, "compare", lambda *_, verdict=verdict: (verdict, "on these numbers"))
        classifier = Classifier("transfer", settings={"fine_tune": 1, "validation": 0.3}, device="cpu")
        epochs = [epoch for epoch in classifier.fit_epochs(data) if epoch.finished]

        assert [epoch.number for epoch in epochs] == [1, 2, 3]
        trained, labels_of = data.images[classifier.split_.train], data.labels[classifier.split_.train]
        assert epochs[-1].doing.endswith("on these numbers") and classifier.notes_[-1] == epochs[-1].doing
        kept = loss_and_accuracy(extract_features(classifier.module_, trained).logits, labels_of)
        assert (epochs[-1].loss, epochs[-1].accuracy) == pytest.approx(kept, abs=1e-4)
        assert classifier.metadata().backbone.fine_tuned is verdict  # type: ignore[union-attr]
        assert classifier.predictor_.probabilities(data.images).shape == (40, len(data.class_names))
        models.append(classifier.module_.backbone.backbone.model)
    assert models[0] != models[1]


def test_what_cannot_be_fine_tuned_is_refused(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match="cannot be fine-tuned"):
        TunedNetwork(replace(backbone, network=None), FrozenNetwork(backbone, 3), whole=False)
    with pytest.raises(UsageError, match="nothing to fine-tune"):
        find_recipe("fast", fine_tune=3)
    with pytest.raises(UsageError, match="contradict"):
        Classifier("transfer", folds=5, settings={"fine_tune": 2}).fit(*shapes(30))
