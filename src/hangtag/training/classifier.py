"""`ImageClassifier`: scikit-learn's contract over the training engine. The only file that knows both halves.

Training happens in PyTorch; every prediction comes from the exported file through ONNX Runtime, so what is judged
here is what ships. It draws and writes nothing by itself, except in `save`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from torch import nn

from hangtag.data.labelled_images import LabelledImages, from_arrays
from hangtag.data.splits import split_of
from hangtag.errors import ArtifactError, DataError, ModelError, RunError, UsageError
from hangtag.evaluation.metrics import Evaluation, evaluate
from hangtag.files import user_path, write_bytes
from hangtag.machine import now, versions
from hangtag.mapped import MappedRows, mapping_of
from hangtag.model.artifact import Metadata
from hangtag.model.calibration import fit_calibrator
from hangtag.model.guarantees import Guarantees, fit_guarantees
from hangtag.model.neighbours import KEPT, Neighbours, chosen
from hangtag.model.ood import OodDetector, fit_ood_detector
from hangtag.model.predictor import Predictor, load
from hangtag.pictures import Images, ImageSpec, check_images
from hangtag.training.engine.build import build_network, custom_network
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter
from hangtag.training.engine.export import export_model, verify
from hangtag.training.engine.inference import extract_features
from hangtag.training.engine.loop import Epoch, choose_device, train
from hangtag.training.engine.networks import NETWORKS, FlipTTA, parameter_count
from hangtag.training.engine.recipes import RECIPES, Recipe, adapt_to_size, find_recipe
from hangtag.training.engine.sampling import balance_note, choose_balance
from hangtag.training.engine.steps import has_bfloat16

__all__ = ["MOST_DESCRIBED", "VERIFIED", "ImageClassifier", "part_of", "split_seed_of"]

_IN_MEMORY = 256_000_000  # bytes; images of a larger mapped file are read as training needs them
VERIFIED = 1000
"""Training images on which every exported file is compared with its network, at most."""
_TRIED = 16
"""Images on which a network of somebody else's is tried before it is trained."""
MOST_DESCRIBED = 10_000
"""Training images that say what is familiar, at most: seconds, not a share of the training."""


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """An image classifier with scikit-learn's interface.

    Args:
        recipe: how to train: "fast" (default), "tutorial", or a `Recipe`.
        model: the name of a network ("mlp", "cnn", or "module:function" of your own), a `torch.nn.Module` (copied,
            never changed), or a function of (ImageSpec, number of classes) that makes one; None takes the recipe's. It
            takes float32 (N, C, H, W) from 0 to 1 and returns logits (N, K).
        epochs: passes over the training images; None takes the recipe's.
        seed: decides weights, order, augmentation and split; the same seed, machine and versions give the same model.
        device: "auto", "cpu" or "cuda".
        split_seed: decides which images are held out; None takes `seed`.

    Attributes:
        classes_: (K,) sorted labels, as given to `fit`; 0..K-1 after fitting a `LabelledImages`.
        class_names_: their K names.
        history_: one `Epoch` per epoch.
        network_: the trained `torch.nn.Module`.
        split_: which images trained and which validated.
        notes_: what training decided by itself, in sentences.

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
        """`fit` as an iterator over its progress; whenever you leave it, what was learned so far is kept.

        Args:
            stop: asked some times a second; True ends the training.
            keeper: saves checkpoints when it finds that due.
            resume: go on from here, with the `history` of the epochs before.
        """
        given = self._prepare(X, y)
        recipe = self.chosen_recipe()
        device = choose_device(self.device)
        _suits(recipe, given)
        data, self.split_ = split_of(given, recipe.validation, split_seed_of(self))
        recipe, self._suited = adapt_to_size(recipe, len(self.split_.train))
        recipe = self.recipe_ = self._balanced(recipe, data, device)
        self.network_ = self._network(data, recipe)
        self.history_: list[Epoch] = list(history)
        chosen, held_out = (part_of(data, positions) for positions in (self.split_.train, self.split_.validation))
        self._content: bytes | None = None  # the model file, made when first asked for
        self._taught: tuple[Guarantees, OodDetector | None] | None = None  # by the held-out images, likewise
        self._learned, self._held_out = _Learned.of(data, self.split_.train, self.seed), held_out
        self._opened: Predictor | None = None
        self._sample = np.array(data.images[:VERIFIED])
        if resume is None and self.network_name() not in NETWORKS:
            self._check_ships()
        try:
            for epoch in train(
                self.network_, *chosen, recipe, self.seed, held_out, device, stop, checkpoint_writer, resume,
            ):  # fmt: skip
                self._content = self._opened = self._taught = None
                if epoch.finished:
                    self.history_.append(epoch)
                yield epoch
        finally:  # also where whoever asks leaves early
            self.network_.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def predict_proba(self, X: LabelledImages | Images) -> NDArray[np.float32]:
        """(N, K) probabilities, columns in the order of `classes_`, from the exported file."""
        return self.predictor_.probabilities(X.images if isinstance(X, LabelledImages) else X)

    def predict(self, X: LabelledImages | Images) -> NDArray[Any]:
        """(N,) labels, of the kind that was given to `fit`."""
        positions = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[positions]
        return labels

    def evaluate(self, X: LabelledImages | Images, y: Any = None) -> Evaluation:
        """How good the classifier is on images it was not trained on.

        Raises:
            DataError: labels the classifier does not know, or of another length.
        """
        if isinstance(X, LabelledImages):
            if X.class_names != self.class_names_:
                raise DataError(
                    f"{X.name} has classes {', '.join(X.class_names)}, the model {', '.join(self.class_names_)}",
                    "evaluate on data with the same classes in the same order",
                )
            images, positions = X.images, X.labels
        else:
            images, positions = check_images(X), self._positions(y)
        return evaluate(self.predict_proba(images), positions, self.class_names_, self.training_accuracy_)

    def save(self, path: str | Path) -> None:
        """Write the model file; `hangtag.load` opens it, without PyTorch."""
        write_bytes(user_path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """The model file, proved on some training images to answer as the network does."""
        if not self.__sklearn_is_fitted__():
            raise RunError("this classifier is not fitted", "call fit first")
        if self._content is None:
            _, ood_detector = self._promises()
            content = export_model(self.shipped_, self.metadata(), ood_detector)
            verify(content, self.shipped_, self._sample, ood_detector)
            self._content = content
        return self._content

    @property
    def guarantees_(self) -> Guarantees:
        """What the model promises about its answers, learned from the held-out images."""
        return self._promises()[0]

    def neighbours(self, count: int = KEPT) -> Neighbours:
        """Some of the training images, `KEPT` at most, small, with what the network sees in them."""
        pictures, labels = self._learned.at(chosen(self._learned.labels, self.seed, min(count, KEPT)))
        return Neighbours.of(pictures, labels, extract_features(self.shipped_, pictures).embedding)

    @property
    def ood_detector_(self) -> OodDetector | None:
        """What the model learned from looks like; None where nothing was held out."""
        return self._promises()[1]

    def _promises(self) -> tuple[Guarantees, OodDetector | None]:
        if self._taught is None:
            images, labels = self._held_out
            if not len(labels):
                why = "no pictures were held out: its probabilities are not calibrated, and it promises nothing else"
                self._taught = Guarantees.none(len(self.class_names_), why), None
            else:
                pictures, theirs = self._learned.at(_described(len(self._learned.labels), self.seed))
                learned = extract_features(self.shipped_, pictures)
                seen = extract_features(self.shipped_, images)
                ood_detector = fit_ood_detector(learned.descriptor, theirs, seen.descriptor, seen.logits)
                calibrator = fit_calibrator(seen.logits, labels)
                self._taught = fit_guarantees(seen.logits, labels, calibrator, self.class_names_, True), ood_detector
        return self._taught

    def _check_ships(self) -> None:
        """Raises ModelError where a network, not yet trained, does not answer from a file as it does.

        Some seconds, which spare a whole training of what could not ship.
        """
        try:
            verify(export_model(self.shipped_, self._metadata(None)), self.shipped_, self._sample[:_TRIED])
        except ArtifactError as error:
            raise ModelError(
                f"the exported network takes no other number of images than it was exported with: {error.message}",
                "make no Python number of how many images there are: x.shape[0] instead of len(x), x.flatten(1), ...",
            ) from error

    def metadata(self) -> Metadata:
        """What the model file says about itself."""
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
        """The model file, opened."""
        content = self.to_bytes()
        if self._opened is None:
            self._opened = load(content)
        return self._opened

    @property
    def shipped_(self) -> nn.Module:
        """What the model file computes: the trained network, averaged over mirror images where the recipe says so."""
        return FlipTTA(self.network_) if self.recipe_.uses_flip_tta else self.network_

    @property
    def training_accuracy_(self) -> float | None:
        """Of the epoch whose weights were kept."""
        if not self.history_:
            return None
        kept = self.history_[-1].kept
        return next((epoch.accuracy for epoch in self.history_ if epoch.number == kept), self.history_[-1].accuracy)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        if self.__sklearn_is_fitted__():
            self._promises()  # learned from images that do not travel
        state: dict[str, Any] = dict(super().__getstate__())
        for name in ("_learned", "_held_out"):
            state.pop(name, None)
        state["_opened"] = None  # an ONNX Runtime session cannot move between processes; it is opened again
        return state

    def _prepare(self, X: LabelledImages | Images, y: Any) -> LabelledImages:
        if isinstance(X, LabelledImages):
            data = X
            if X.parts and "train" not in X.parts:
                raise DataError(f"{X.name} has no training part", f"it has {', '.join(X.parts)}")
            self.classes_: NDArray[Any] = np.arange(len(data.class_names))
        else:
            if y is None:
                raise DataError("labels are missing", "call fit(images, labels), or fit(data) with a LabelledImages")
            data = from_arrays(X, y, natural_order=False)  # the order of classes_, which scikit-learn's contract sorts
            self.classes_ = np.unique(np.asarray(y))
        self.class_names_ = data.class_names
        self.spec_ = data.spec
        train = data.train
        if not len(train):
            raise DataError(f"{data.name} has no training images", "give some: a part called train, or no parts")
        self._data_summary = {"name": train.name, "fingerprint": train.fingerprint, "images": len(train)}
        return data

    def chosen_recipe(self) -> Recipe:
        return find_recipe(self.recipe, self.model if isinstance(self.model, str) else None, self.epochs)

    def _network(self, data: LabelledImages, recipe: Recipe) -> nn.Module:
        classes = len(data.class_names)
        if self.model is None or isinstance(self.model, str):
            return build_network(recipe.network, data.spec, classes, self.seed)
        return custom_network(self.model, data.spec, classes, self.seed)

    def _balanced(self, recipe: Recipe, data: LabelledImages, device: torch.device) -> Recipe:
        """The recipe with everything decided that it leaves to the data and the machine; each said in `notes_`."""
        counts = np.bincount(data.labels[self.split_.train], minlength=len(data.class_names))
        chosen = choose_balance(recipe, counts)
        notes = [balance_note(chosen, counts, data.class_names)]
        notes.append(_mirror_hint(recipe, data.class_names))
        if recipe.bfloat16 and not has_bfloat16(device.type):
            notes.append("this processor has no bfloat16 products in hardware: training in float32, slower")
        self.notes_ = [note for note in (self._suited, *notes, *self.split_.notes) if note]
        return replace(recipe, balance=chosen)

    def network_name(self) -> str:
        if self.model is None or isinstance(self.model, str):
            return self.recipe_.network
        return type(self.network_).__name__

    def _positions(self, y: Any) -> NDArray[np.int64]:
        given = np.asarray(y)
        positions = np.searchsorted(self.classes_, given)
        clipped = np.minimum(positions, len(self.classes_) - 1)
        unknown = self.classes_[clipped] != given
        if unknown.any():
            raise DataError(
                f"label {given[unknown][0]!s} is not one the model knows", f"it knows {', '.join(self.class_names_)}"
            )
        return clipped.astype(np.int64)


@dataclass(frozen=True)
class _Learned:
    """Those of M training images that are looked at after the training; the others need not stay in memory.

    Attributes:
        labels: (M,) of all.
        positions: (L,) ascending, of those that are kept.
        images: (L, ...) uint8.
    """

    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    images: Images | MappedRows

    @classmethod
    def of(cls, data: LabelledImages, train: NDArray[np.int64], seed: int) -> "_Learned":
        """Of the images at `train`."""
        labels = data.labels[train]
        positions = np.union1d(_described(len(labels), seed), chosen(labels, seed, KEPT))
        return cls(labels, positions, part_of(data, train[positions])[0])

    def at(self, some: NDArray[np.int64]) -> tuple[Images, NDArray[np.int64]]:
        """Images and labels of some that are kept, by their positions among all."""
        return np.asarray(self.images[np.searchsorted(self.positions, some)]), self.labels[some]


def _described(images: int, seed: int) -> NDArray[np.int64]:
    """Positions of the training images that say what is familiar."""
    return np.sort(np.random.default_rng(seed).permutation(images)[:MOST_DESCRIBED])


def split_seed_of(classifier: ImageClassifier) -> int:
    """What decides which images are held out."""
    return classifier.seed if classifier.split_seed is None else classifier.split_seed


def _suits(recipe: Recipe, data: LabelledImages) -> None:
    """Raises where a setting cannot be meant for such data.

    A named recipe's own batch shrinks to small data; one that was asked for does not.
    """
    images = len(data.train)
    own = RECIPES.get(recipe.name)
    if recipe.batch_size > images and (own is None or own.batch_size != recipe.batch_size):
        raise UsageError(
            f"a batch of {recipe.batch_size:,} is larger than the data: {images:,} training images",
            f"use a smaller one: --batch-size {max(1, images // 10)}",
        )
    if recipe.patience and not recipe.validation and "validation" not in data.parts:
        raise UsageError(
            f"patience={recipe.patience} needs images held out, and recipe '{recipe.name}' holds out none",
            "hold some out: --set validation=0.1",
        )


def _mirror_hint(recipe: Recipe, class_names: tuple[str, ...]) -> str:
    """A sentence where mirror images are used and the names of the classes let one doubt that they should be."""
    characters = all(len(name) == 1 for name in class_names)
    if not recipe.flip or not (characters or any({"left", "right"} & set(_words(name)) for name in class_names)):
        return ""
    told = "a single character each" if characters else "left or right"
    return (
        f"classes are called by {told}: where a mirror image would be another thing, as with digits and letters, "
        "train without them: --set flip=no"
    )


def _words(name: str) -> list[str]:
    """
    >>> _words("Left_shoe-2")
    ['left', 'shoe']
    """
    return re.findall("[a-z]+", name.lower())


def part_of(data: LabelledImages, positions: NDArray[np.int64]) -> tuple[Images | MappedRows, NDArray[np.int64]]:
    """Images and labels; the images of a large file stay in it."""
    labels = data.labels[positions]
    if data.images.nbytes > _IN_MEMORY and mapping_of(data.images) is not None:
        return MappedRows(data.images, positions), labels
    return data.images[positions], labels
