"""`ImageClassifier`: training with scikit-learn's interface.

PyTorch trains; every prediction comes from the exported file through ONNX Runtime, so that what is judged is what is
shipped. Only `save` writes a file.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from torch import nn

from hangtag.data.labelled_images import LabelledImages, from_arrays
from hangtag.data.splits import split_of
from hangtag.errors import ArtifactError, DataError, ModelError, RunError, UsageError
from hangtag.evaluation.judge import Judgement
from hangtag.evaluation.metrics import Evaluation
from hangtag.files import user_path, write_bytes
from hangtag.machine import now, versions
from hangtag.mapped import MappedRows, mapping_of
from hangtag.model.artifact import OUTPUT, Artifact, Metadata, check_file, open_artifact
from hangtag.model.calibration import cross_fitted
from hangtag.model.guarantees import Guarantees, fit_guarantees
from hangtag.model.neighbours import KEPT, Neighbours, chosen
from hangtag.model.ood import OodDetector, fit_ood_detector
from hangtag.model.predictor import Predictor, load
from hangtag.pictures import Images, ImageSpec, check_images
from hangtag.training.engine.build import build_network, custom_network
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter
from hangtag.training.engine.export import export_model, verify, with_metadata
from hangtag.training.engine.inference import extract_features
from hangtag.training.engine.loop import Epoch, choose_device, train
from hangtag.training.engine.networks import NETWORKS, FlipTTA, parameter_count
from hangtag.training.engine.recipes import RECIPES, Recipe, adapt_to_size, find_recipe
from hangtag.training.engine.sampling import balance_note, choose_balance
from hangtag.training.engine.steps import has_bfloat16

__all__ = ["MOST_DESCRIBED", "VERIFIED", "ImageClassifier", "part_of", "split_seed_of"]

_IN_MEMORY = 256_000_000  # bytes; images of a larger memory-mapped file are read as training needs them
_TRIAL_IMAGES = 16  # on which a custom network's export is verified before training
VERIFIED = 1000
"""Training images, at most, on which every exported file is compared with its network."""
MOST_DESCRIBED = 10_000
"""Training images, at most, that the OOD detector is fitted on; this takes seconds."""


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """An image classifier with scikit-learn's interface.

    Args:
        recipe: how to train: the name of a recipe, such as "fast" (default) or "tutorial", or a `Recipe`.
        model: the name of a network ("mlp", "cnn", or "module:function" in your own code), a `torch.nn.Module` (copied,
            never changed), or a function that creates one from (ImageSpec, number of classes). It takes float32
            (N, C, H, W) from 0 to 1 and returns logits (N, K). None uses the recipe's network.
        epochs: passes over the training images; None uses the recipe's number.
        seed: determines weights, order, augmentation and split; the same seed, machine and versions give equal models.
        device: "auto", "cpu" or "cuda".
        split_seed: determines which images are held out; None uses `seed`.

    Attributes:
        classes_: (K,) sorted labels, as given to `fit`; 0..K-1 after fitting a `LabelledImages`.
        class_names_: their K names.
        history_: one `Epoch` per epoch.
        network_: the trained `torch.nn.Module`.
        split_: the training images and the validation images.
        notes_: what training decided automatically, in sentences.

    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> images = (digits.images * 15.9375).astype(np.uint8)                          # (1797, 8, 8)
    >>> clf = ImageClassifier(recipe="tutorial").fit(images[:1500], digits.target[:1500])
    >>> bool(clf.score(images[1500:], digits.target[1500:]) > 0.8)
    True
    """

    def __init__(
        self,
        recipe: str | Recipe = "fast",
        model: str | nn.Module | Callable[[ImageSpec, int], nn.Module] | None = None,
        epochs: int | None = None,
        seed: int = 0,
        device: str = "auto",
        split_seed: int | None = None,
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.split_seed = split_seed

    def fit(self, X: LabelledImages | Images, y: Any = None) -> "ImageClassifier":
        """Train on a `LabelledImages`, or on images (N, H, W[, 3]) uint8 and labels (N,).

        Raises:
            DataError, PictureError: the images or labels cannot be used.
            ModelError: the network does not fit the images, or training diverged.
        """
        for _ in self.fit_epochs(X, y):
            pass
        return self

    def fit_epochs(
        self,
        X: LabelledImages | Images,
        y: Any = None,
        stop: Callable[[], bool] = lambda: False,
        checkpoint_writer: CheckpointWriter | None = None,
        resume: Checkpoint | None = None,
        history: Sequence[Epoch] = (),
    ) -> Iterator[Epoch]:
        """`fit` as an iterator over its progress. You can leave it at any time and keep the weights trained so far.

        Args:
            stop: called several times per second; training ends when it returns True.
            checkpoint_writer: saves checkpoints at intervals.
            resume: where to resume, with the `history` of the epochs before.
        """
        _check_seeds(self.seed, self.split_seed)
        given = self._prepare(X, y)
        recipe = self.chosen_recipe()
        device = choose_device(self.device)
        _check_settings(recipe, given)
        data, self.split_ = split_of(given, recipe.validation, split_seed_of(self))
        recipe, size_note = adapt_to_size(recipe, len(self.split_.train))
        counts = np.bincount(data.labels[self.split_.train], minlength=len(data.class_names))
        recipe = self.recipe_ = replace(recipe, balance=choose_balance(recipe, counts))
        notes = [size_note, balance_note(recipe.balance, counts, data.class_names), _mirror_note(recipe, data)]
        if recipe.bfloat16 and not has_bfloat16(device.type):
            notes.append("this processor has no bfloat16 arithmetic: training uses float32, which is slower")
        self.notes_ = [note for note in (*notes, *self.split_.notes) if note]
        self.network_ = self._build_network(data, recipe)
        self.history_: list[Epoch] = list(history)
        training, self._held_out = (part_of(data, part) for part in (self.split_.train, self.split_.validation))
        self._kept_images = _KeptImages.of(data, self.split_.train, self.seed)
        self._sample = np.array(data.images[:VERIFIED])
        self._forget_model()
        if resume is None and self.network_name() not in NETWORKS:
            self._check_export()
        try:
            for epoch in train(
                self.network_, *training, recipe, self.seed, self._held_out, device, stop, checkpoint_writer, resume,
            ):  # fmt: skip
                self._forget_model()
                if epoch.finished:
                    self.history_.append(epoch)
                yield epoch
        finally:  # also when the caller leaves early
            self.network_.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def _forget_model(self) -> None:
        """Forget everything that was derived from earlier weights."""
        self._content: bytes | None = None
        self._predictor: Predictor | None = None
        self._export: _Exported | None = None

    def predict_proba(self, X: LabelledImages | Images) -> NDArray[np.float32]:
        """(N, K) probabilities from the exported file, columns in the order of `classes_`."""
        return self.predictor_.probabilities(X.images if isinstance(X, LabelledImages) else X)

    def predict(self, X: LabelledImages | Images) -> NDArray[Any]:
        """(N,) labels of the type given to `fit`."""
        positions = self.predict_proba(X).argmax(axis=1)  # first: it raises RunError if the classifier is not fitted
        labels: NDArray[Any] = self.classes_[positions]
        return labels

    def evaluate(self, X: LabelledImages | Images, y: Any = None) -> Evaluation:
        """Evaluate the classifier on images it was not trained on; classes are matched by name.

        Images of classes that the model does not know are counted apart, in `Evaluation.strangers`.

        Raises:
            DataError: no label is known, or their number differs from that of the images.
        """
        if not isinstance(X, LabelledImages):
            X = self._labelled(X, y)
        return Judgement.of(self.predictor_, "given", X, self.training_accuracy_, None).evaluation

    def save(self, path: str | Path) -> None:
        """Write the model file, which `hangtag.load` opens without PyTorch."""
        write_bytes(user_path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """The model file, verified on some training images to answer as the network does."""
        if not self.__sklearn_is_fitted__():
            raise RunError("this classifier is not fitted", "call fit first")
        if self._content is None:
            content = with_metadata(self._exported().content, self.metadata())
            artifact = open_artifact(content)
            verify(artifact, self.shipped_, self._sample, self.ood_detector_, self.features_device_)
            self._content, self._predictor = content, Predictor(artifact)
        return self._content

    def neighbours(self, count: int = KEPT) -> Neighbours:
        """At most `count` (never more than `KEPT`) training images, reduced in size, with the network's embeddings."""
        kept = self._kept_images
        pictures, labels = kept.at(chosen(kept.labels, self.seed, min(count, KEPT)))
        features = extract_features(self.shipped_, pictures, self.features_device_)
        return Neighbours.of(pictures, labels, features.embedding)

    @property
    def guarantees_(self) -> Guarantees:
        """What the model guarantees about its answers, fitted on the held-out images."""
        return self._exported().guarantees

    @property
    def ood_detector_(self) -> OodDetector:
        """Recognises images unlike the training images."""
        return self._exported().ood_detector

    def _exported(self) -> "_Exported":
        """Export the network, and set its guarantees on what the exported file answers for the held-out images."""
        if self._export is None:
            images, labels = self._held_out
            kept = self._kept_images
            pictures, classes = kept.at(_described(len(kept.labels), self.seed))
            trained = extract_features(self.shipped_, pictures, self.features_device_)
            held_out = extract_features(self.shipped_, images, self.features_device_)
            ood_detector = fit_ood_detector(
                pictures, trained.descriptor, classes, images, held_out.descriptor, held_out.logits
            )
            accuracy = float((trained.logits.argmax(axis=1) == classes).mean())
            none = "no images were held out, so probabilities are not calibrated and there are no guarantees"
            guarantees = replace(Guarantees.none(len(self.class_names_), none), has_ood_score=True)
            if len(labels):
                calibrator, out_of_fold = cross_fitted(held_out.logits, labels)
                guarantees = replace(guarantees, calibrator=calibrator)
            content = export_model(self.shipped_, self._metadata(guarantees), ood_detector)
            if len(labels):
                artifact = Artifact(content, *check_file(content))  # `to_bytes` opens the final file with all checks
                rows = artifact.outputs(cast(Images, images), OUTPUT, "uncalibrated")
                guarantees = fit_guarantees(
                    rows[OUTPUT], labels, calibrator, self.class_names_, True, out_of_fold, rows["uncalibrated"]
                )
            self._export = _Exported(content, guarantees, ood_detector, accuracy)
        return self._export

    def _check_export(self) -> None:
        """Raise ModelError if the untrained network does not answer from a file as it does in PyTorch.

        This takes seconds, and saves training a network that cannot be exported.
        """
        try:
            artifact = open_artifact(export_model(self.shipped_, self._metadata(None)))
            verify(artifact, self.shipped_, self._sample[:_TRIAL_IMAGES])
        except ArtifactError as error:
            raise ModelError(
                f"the exported network works only for one batch size: {error.message}",
                "take the batch size from the tensor: x.shape[0] instead of len(x); or use x.flatten(1)",
            ) from error

    def metadata(self) -> Metadata:
        """The model file's description of itself."""
        return self._metadata(self.guarantees_)

    def _metadata(self, guarantees: Guarantees | None) -> Metadata:
        return Metadata(
            class_names=self.class_names_,
            image=self.spec_,
            network=self.network_name(),
            parameters=parameter_count(self.network_),
            recipe=self.recipe_.to_json(),
            seed=self.seed,
            data=self._data_summary,
            versions=versions(),
            created=now(),
            guarantees=guarantees,
        )

    @property
    def predictor_(self) -> Predictor:
        """The opened model file."""
        content = self.to_bytes()
        if self._predictor is None:
            self._predictor = load(content)
        return self._predictor

    @property
    def shipped_(self) -> nn.Module:
        """What the model file computes: the trained network, averaged over mirror images if the recipe says so."""
        return FlipTTA(self.network_) if self.recipe_.uses_flip_tta else self.network_

    @property
    def features_device_(self) -> torch.device:
        """Where the trained network computes: as in training, or the CPU on a machine without that device."""
        try:
            return choose_device(self.device)
        except UsageError:
            return torch.device("cpu")

    @property
    def training_accuracy_(self) -> float | None:
        """Accuracy of the trained network on at most `MOST_DESCRIBED` training images, without augmentation."""
        return self._exported().training_accuracy if self.__sklearn_is_fitted__() else None

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        if self.__sklearn_is_fitted__():
            self._exported()  # needs images that are not pickled
        state: dict[str, Any] = dict(super().__getstate__())
        for name in ("_kept_images", "_held_out"):
            state.pop(name, None)
        return state | {"_predictor": None}  # an ONNX Runtime session cannot be pickled

    def _prepare(self, X: LabelledImages | Images, y: Any) -> LabelledImages:
        if isinstance(X, LabelledImages):
            data = X
            if X.parts and "train" not in X.parts:
                raise DataError(f"{X.name} has no training part", f"it has {', '.join(X.parts)}")
            self.classes_: NDArray[Any] = np.arange(len(data.class_names))
        else:
            if y is None:
                raise DataError("labels are missing", "call fit(images, labels), or fit(data) with a LabelledImages")
            data = from_arrays(X, y, natural_order=False)  # sorted as classes_, as scikit-learn's contract requires
            self.classes_ = np.unique(np.asarray(y))
        self.class_names_ = data.class_names
        self.spec_ = data.spec
        train = data.train
        if not len(train):
            raise DataError(
                f"{data.name} has no training images", "add a part called train, or give data without parts"
            )
        self._data_summary = {"name": train.name, "fingerprint": train.fingerprint, "images": len(train)}
        return data

    def chosen_recipe(self) -> Recipe:
        """The recipe with `model` and `epochs` applied."""
        return find_recipe(self.recipe, self.model if isinstance(self.model, str) else None, self.epochs)

    def _build_network(self, data: LabelledImages, recipe: Recipe) -> nn.Module:
        classes = len(data.class_names)
        if self.model is None or isinstance(self.model, str):
            return build_network(recipe.network, data.spec, classes, self.seed)
        return custom_network(self.model, data.spec, classes, self.seed)

    def network_name(self) -> str:
        """The name of a built-in or imported network, or the class of a custom one."""
        if self.model is None or isinstance(self.model, str):
            return self.recipe_.network
        return type(self.network_).__name__

    def _labelled(self, X: Images, y: Any) -> LabelledImages:
        """Images with labels of the type given to `fit`; labels that are unknown become further classes."""
        images, given = check_images(X, spec=self.spec_), np.asarray(y)
        if given.shape != (len(images),):
            raise DataError(
                f"{len(images):,} images but labels of shape {given.shape}", "give one label for each image"
            )
        positions = np.minimum(np.searchsorted(self.classes_, given), len(self.classes_) - 1)
        unknown = self.classes_[positions] != given
        others, where = np.unique(given[unknown], return_inverse=True)
        positions[unknown] = len(self.classes_) + where
        return LabelledImages(images, positions.astype(np.int64), (*self.class_names_, *map(str, others.tolist())))


@dataclass(frozen=True, eq=False)
class _Exported:
    """A model file, which lacks only its final metadata, and what was measured for them."""

    content: bytes
    guarantees: Guarantees
    ood_detector: OodDetector
    training_accuracy: float


@dataclass(frozen=True)
class _KeptImages:
    """The training images that are used after training; the others can leave memory.

    Attributes:
        labels: (M,) of all M training images.
        positions: (L,) ascending positions of the kept images among all.
        images: (L, ...) uint8.
    """

    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    images: Images | MappedRows

    @classmethod
    def of(cls, data: LabelledImages, train: NDArray[np.int64], seed: int) -> "_KeptImages":
        labels = data.labels[train]
        positions = np.union1d(_described(len(labels), seed), chosen(labels, seed, KEPT))
        return cls(labels, positions, part_of(data, train[positions])[0])

    def at(self, positions: NDArray[np.int64]) -> tuple[Images, NDArray[np.int64]]:
        """Images and labels of some kept images, by their positions among all."""
        return np.asarray(self.images[np.searchsorted(self.positions, positions)]), self.labels[positions]


def _described(images: int, seed: int) -> NDArray[np.int64]:
    """Positions of the training images that the OOD detector is fitted on."""
    return np.sort(np.random.default_rng(seed).permutation(images)[:MOST_DESCRIBED])


def split_seed_of(classifier: ImageClassifier) -> int:
    """The seed that determines which images are held out."""
    return classifier.seed if classifier.split_seed is None else classifier.split_seed


def _check_seeds(*seeds: Any) -> None:
    for seed in seeds:
        if seed is not None and not (isinstance(seed, Integral) and 0 <= int(seed) < 2**63):
            raise UsageError(f"seed must be a whole number from 0 to 2^63 - 1, got {seed!r}", "for example seed=0")


def _check_settings(recipe: Recipe, data: LabelledImages) -> None:
    """Raise UsageError if a setting does not fit the data.

    The batch size of a named recipe shrinks for small data; one that the user chose does not.
    """
    images = len(data.train)
    default = RECIPES.get(recipe.name)
    if recipe.batch_size > images and (default is None or default.batch_size != recipe.batch_size):
        raise UsageError(
            f"batch_size must be at most {images:,}, the number of training images, got {recipe.batch_size:,}",
            f"use a smaller one: --batch-size {max(1, images // 10)}",
        )
    if recipe.patience and not recipe.validation and "validation" not in data.parts:
        raise UsageError(
            f"patience={recipe.patience} needs held-out images, but recipe '{recipe.name}' holds out none",
            "hold some out: --set validation=0.1",
        )


def _mirror_note(recipe: Recipe, data: LabelledImages) -> str:
    """A hint if mirror images are used and the class names suggest that mirroring changes the class; or ""."""
    if not recipe.flip:
        return ""
    words = [re.findall("[a-z]+", name.lower()) for name in data.class_names]
    if all(len(name) == 1 for name in data.class_names):
        names = "are single characters"
    elif any({"left", "right"} & set(each) for each in words):
        names = "contain left or right"
    else:
        return ""
    return (
        f"class names {names}, and training uses mirror images; if mirroring changes the class, as with digits and "
        "letters, turn it off: --set flip=no"
    )


def part_of(data: LabelledImages, positions: NDArray[np.int64]) -> tuple[Images | MappedRows, NDArray[np.int64]]:
    """Images and labels at these positions; images of a large memory-mapped file stay in it."""
    labels = data.labels[positions]
    if data.images.nbytes > _IN_MEMORY and mapping_of(data.images) is not None:
        return MappedRows(data.images, positions), labels
    return data.images[positions], labels
