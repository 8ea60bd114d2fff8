"""Exporting a trained network: the model file, with calibration, guarantees, OOD detector and appearance."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import ArtifactError, ModelError
from hangtag.evaluation.cross_validation import CrossValidation
from hangtag.machine import blas_threads
from hangtag.mapped import MappedRows
from hangtag.model.appearance import Appearance, fit_appearance
from hangtag.model.artifact import OUTPUT, Artifact, Metadata, check_file, open_artifact
from hangtag.model.calibration import cross_fitted, log_softmax
from hangtag.model.guarantees import Guarantees, fit_guarantees
from hangtag.model.neighbours import KEPT, chosen
from hangtag.model.ood import LEAST_TURNED, OodDetector, TurnedCopies, fit_ood_detector
from hangtag.model.turned import turned_images
from hangtag.pictures import Images, ImageSpec
from hangtag.training.cross_fit import CrossFit
from hangtag.training.engine.export import FoldHeads, export_model, quick_features, verify, verify_outputs
from hangtag.training.engine.inference import Features, extract_features
from hangtag.training.engine.loop import Labelled
from hangtag.training.fit_input import part_of

__all__ = ["MOST_DESCRIBED", "VERIFIED", "Exported", "KeptImages", "check_exportable", "export_trained", "sample_of"]

_TRIAL_IMAGES = 16  # on which a custom network's export is verified before training
VERIFIED = 1000
"""Training images, at most, on which every exported file is compared with its network."""
_VERIFIED_PIXELS = 10_000_000  # of these images: 199 of 224x224
MOST_DESCRIBED = 8_000
"""Training images, at most, that the OOD detector is fitted on; this takes seconds."""
_TURNED_PIXELS, _CHECKED_PIXELS = 2_500_000, 300_000  # of turned images that the detector is fitted and tried on


@dataclass(frozen=True)
class KeptImages:
    """The training images that are used after training; the others can leave memory.

    Attributes:
        labels: (M,) of all M training images.
        positions: (L,) ascending positions of the kept images among all.
        images: (L, ...) uint8.
        seed: determines which images are kept.
    """

    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    images: Images | MappedRows
    seed: int

    @classmethod
    def of(cls, data: LabelledImages, train: NDArray[np.int64], seed: int) -> "KeptImages":
        """Those among the training images, which are at the positions `train`."""
        labels = data.labels[train]
        described = _described(len(labels), seed)
        positions = np.union1d(described, chosen(labels, seed, KEPT, described))
        return cls(labels, positions, part_of(data, train[positions])[0], seed)

    @property
    def described(self) -> NDArray[np.int64]:
        """The places in `images` of at most `MOST_DESCRIBED` that the OOD detector is fitted on."""
        return np.searchsorted(self.positions, _described(len(self.labels), self.seed))

    def neighbours(self, count: int = KEPT) -> NDArray[np.int64]:
        """The places in `images` of at most `count` that explain answers, mostly among those described."""
        described = _described(len(self.labels), self.seed)
        return np.searchsorted(self.positions, chosen(self.labels, self.seed, min(count, KEPT), described))

    def at(self, places: NDArray[np.int64]) -> tuple[Images, NDArray[np.int64]]:
        """Some of `images`, and their labels."""
        return np.asarray(self.images[places]), self.labels[self.positions[places]]


def _described(images: int, seed: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(images)[:MOST_DESCRIBED])


@dataclass(frozen=True, eq=False)
class Exported:
    """A model file that lacks only its final metadata, and what was measured for it.

    Attributes:
        training_accuracy: of the calibrated network on `KeptImages.described`.
        embeddings: (L, E) of `KeptImages.images`; None in a classifier that was pickled.
        held_out: outputs of the file for the held-out images, verified to be the network's; None as for `embeddings`,
            or if no images were held out.
        fold_heads: the last layers of the folds' networks in the file, for its prediction sets; None if it has none.
        answers_of_folds: None if the model was not cross-validated.
    """

    content: bytes
    guarantees: Guarantees
    ood_detector: OodDetector
    training_accuracy: float
    fold_heads: FoldHeads | None
    answers_of_folds: CrossValidation | None
    appearance: Appearance
    embeddings: NDArray[np.float32] | None
    held_out: dict[str, NDArray[np.float32]] | None


def export_trained(
    network: nn.Module,
    metadata: Metadata,
    device: torch.device,
    kept: KeptImages,
    held_out: Labelled,
    crossed: CrossFit | None,
) -> Exported:
    """Export a network; its guarantees come from `crossed`, or else from the file's answers for `held_out`.

    Args:
        network: what the file computes (`Classifier.shipped_`).
        metadata: of the model, without guarantees.
        device: where the network computes.
    """
    features_of = quick_features(network, metadata.image, device)
    features = features_of(kept.images)
    pictures, labels = kept.at(kept.described)
    trained = features.take(kept.described)
    answers_of_folds, heads, rows = None, None, None
    if crossed is not None:
        fitted = crossed.fitted(pictures, trained, labels, metadata.class_names)
        guarantees, ood_detector, answers_of_folds = fitted.guarantees, fitted.ood_detector, fitted.answers
        heads = crossed.heads if guarantees.needs_folds else None
        content = export_model(network, replace(metadata, guarantees=guarantees), ood_detector, heads)
    else:
        content, guarantees, ood_detector, rows = _with_held_out(
            network, metadata, device, features_of, pictures, trained, labels, held_out
        )
    answers = guarantees.calibrator(log_softmax(trained.logits)).argmax(axis=1)
    accuracy = float((answers == labels).mean())
    appearance = fit_appearance(pictures)
    return Exported(
        content, guarantees, ood_detector, accuracy, heads, answers_of_folds, appearance, features.embedding, rows
    )


def _with_held_out(
    network: nn.Module, metadata: Metadata, device: torch.device, features_of: Callable[[Images], Features],
    pictures: Images, trained: Features, classes: NDArray[np.int64], held_out: Labelled,
) -> tuple[bytes, Guarantees, OodDetector, dict[str, NDArray[np.float32]] | None]:  # fmt: skip
    """The file, what its answers for the held-out images guarantee, and these; `trained` are features of `pictures`.

    Raises:
        ModelError: the file does not answer as the network does for the held-out images.
    """
    images, labels = held_out
    features = extract_features(network, images, device)
    with ThreadPoolExecutor(1) as beside:  # the fits of both use one core
        with blas_threads(1):  # others would wait busily between the calibration's small products
            calibrated = beside.submit(cross_fitted, features.logits, labels) if len(labels) else None
            turned = None if metadata.backbone else _turned(features_of, metadata.image, pictures, images)
        ood_detector = fit_ood_detector(
            pictures, trained.descriptor, classes, images, features.descriptor, features.logits, trained.logits, turned
        )
    none = "no images were held out, so probabilities are not calibrated and there are no guarantees"
    guarantees = replace(Guarantees.none(len(metadata.class_names), none), has_ood_score=True)
    if calibrated is not None:
        calibrator, out_of_fold = calibrated.result()
        guarantees = replace(guarantees, calibrator=calibrator)
    content = export_model(network, replace(metadata, guarantees=guarantees), ood_detector)
    rows = None
    if calibrated is not None:
        # `Classifier.to_bytes` opens the final file with all checks.
        artifact = Artifact(content, *check_file(content), spins=False)
        rows = artifact.outputs(cast(Images, images), OUTPUT, "uncalibrated", "ood_score")
        verify_outputs(rows, artifact.metadata, network, cast(Images, images), ood_detector, device, features)
        guarantees = fit_guarantees(
            rows[OUTPUT], labels, calibrator, metadata.class_names, True, out_of_fold, rows["uncalibrated"]
        )
    return content, guarantees, ood_detector, rows


def _turned(
    features_of: Callable[[Images], Features], spec: ImageSpec, pictures: Images, held_out: Images | MappedRows
) -> TurnedCopies | None:
    """What the network says about turned copies of some training and held-out images; None if few were held out."""
    if len(held_out) < LEAST_TURNED:
        return None
    some, others = (
        turned_images(_spread(each, max(LEAST_TURNED, pixels // math.prod(spec.shape[:2]))), spec)
        for each, pixels in ((pictures, _TURNED_PIXELS), (held_out, _CHECKED_PIXELS))
    )
    seen, unseen = (features_of(each) for each in (some, others))
    return TurnedCopies(seen.descriptor, seen.logits, others, unseen.descriptor, unseen.logits)


def _spread(images: Images | MappedRows, count: int) -> Images:
    """At most `count` images from all over."""
    return np.asarray(images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64)])


def sample_of(data: LabelledImages) -> Images:
    """The images on which an exported file is compared with its network."""
    most = _VERIFIED_PIXELS // math.prod(data.spec.shape[:2])
    return np.array(data.images[: min(VERIFIED, max(_TRIAL_IMAGES, most))])


def check_exportable(network: nn.Module, metadata: Metadata, sample: Images) -> None:
    """Raise ModelError if an untrained network does not answer from a file as it does in PyTorch.

    This takes seconds, and saves training a network that cannot be exported.
    """
    try:
        verify(open_artifact(export_model(network, metadata)), network, sample[:_TRIAL_IMAGES])
    except ArtifactError as error:
        raise ModelError(
            f"the exported network works only for one batch size: {error.message}",
            "take the batch size from the tensor: x.shape[0] instead of len(x); or use x.flatten(1)",
        ) from error
