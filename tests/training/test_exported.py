"""exported.py: what the network says about turned copies, for the OOD detector."""

import numpy as np
import torch

from hangtag.model.turned import turned_images
from hangtag.pictures import ImageSpec
from hangtag.training import exported
from hangtag.training.engine.build import build_network
from hangtag.training.engine.export import quick_features
from hangtag.training.engine.inference import extract_features
from toys import CLASSES, SIDE, shapes

SPEC = ImageSpec(SIDE, SIDE, background=0)


def test_the_detector_is_given_features_of_turned_training_and_held_out_images() -> None:
    network = build_network("mlp", SPEC, len(CLASSES), seed=0).eval()
    images, held_out = shapes(300)[0], shapes(120, seed=1)[0]
    features_of = quick_features(network, SPEC, torch.device("cpu"))

    copies = exported._turned(features_of, SPEC, images, held_out)

    assert copies is not None
    np.testing.assert_array_equal(copies.held_out_images, turned_images(held_out, SPEC))
    seen = extract_features(network, turned_images(images, SPEC))
    np.testing.assert_allclose(copies.descriptor, seen.descriptor, atol=1e-5)
    np.testing.assert_allclose(copies.logits, seen.logits, atol=1e-5)
    assert len(copies.held_out_descriptor) == len(copies.held_out_logits) == 120
    assert exported._turned(features_of, SPEC, images, held_out[:99]) is None


def test_a_sample_is_spread_over_all_images() -> None:
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1)

    assert exported._spread(images, 12).ravel().tolist() == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]
    assert len(exported._spread(images, 1000)) == 100
