"""`Classifier`: fit, predict, save; `estimator.py` makes it an estimator of scikit-learn.

It does without scikit-learn, whose import takes as long as training a small network; the command line uses it directly.
PyTorch trains; every prediction comes from the exported file through ONNX Runtime, so that what is judged is what is
shipped. Only `save` writes a file.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hangtag.data.folds import Folds, folds_of
from hangtag.data.labelled_images import LabelledImages, from_arrays, one_column
from hangtag.data.splits import split_of
from hangtag.errors import ArtifactError, DataError, ModelError, RunError, UnknownName, UsageError, logger
from hangtag.evaluation.cross_validation import CrossValidation
from hangtag.evaluation.judge import Judgement
from hangtag.evaluation.metrics import Evaluation
from hangtag.files import user_path, write_bytes
from hangtag.machine import now, versions
from hangtag.mapped import MappedRows, mapping_of
from hangtag.model.appearance import Appearance, fit_appearance
from hangtag.model.artifact import OUTPUT, Artifact, Metadata, check_file, open_artifact
from hangtag.model.calibration import cross_fitted, log_softmax
from hangtag.model.guarantees import Guarantees, fit_guarantees
from hangtag.model.neighbours import KEPT, Neighbours, chosen
from hangtag.model.ood import OodDetector, fit_ood_detector
from hangtag.model.predictor import Pictures, Predictor, load
from hangtag.pictures import Images, ImageSpec, check_images, many_images
from hangtag.training.choose_recipe import AUTO, choose_recipe
from hangtag.training.cross_fit import CrossFit, Progress, cross_fit, with_checked_folds, with_folds, without_own_split
from hangtag.training.engine.build import build_network, custom_network
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter
from hangtag.training.engine.custom import Augment, Loss, check_augment, suit_loss
from hangtag.training.engine.export import FoldHeads, export_model, verify, with_metadata
from hangtag.training.engine.frozen import FrozenNetwork
from hangtag.training.engine.inference import Features, extract_features
from hangtag.training.engine.keras_model import keras_notes, own_network, user_network
from hangtag.training.engine.loop import Epoch, Labelled, choose_device, train
from hangtag.training.engine.networks import NETWORKS, FlipTTA, Layer, channels_first, layers, parameter_count
from hangtag.training.engine.recipes import (
    DEFAULT,
    Recipe,
    adapt_to_pixels,
    adapt_to_size,
    changed,
    check_not_two,
    find_recipe,
    is_given,
)
from hangtag.training.engine.sampling import balance_note, choose_balance
from hangtag.training.engine.steps import has_bfloat16
from hangtag.training.fit_input import (
    are_files,
    check_same_labels,
    checked_weights,
    with_validation,
    without_weightless,
)
from hangtag.training.fit_progress import folds_progress, show_progress
from hangtag.training.mirroring import choose_flip
from hangtag.training.transfer import build_frozen, fine_tune, fit_frozen
from hangtag.words import natural

__all__ = [
    "MOST_DESCRIBED",
    "VERIFIED",
    "Classifier",
    "Summary",
    "part_of",
    "seed_of",
    "split_seed_of",
]

_IN_MEMORY = 256_000_000  # bytes; images of a larger memory-mapped file are read as training needs them
_SETTINGS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "validation",
    "folds",
    "patience",
)  # of the recipe; also parameters
_TRIAL_IMAGES = 16  # on which a custom network's export is verified before training
VERIFIED = 1000
"""Training images, at most, on which every exported file is compared with its network."""
_VERIFIED_PIXELS = 10_000_000  # of these images: 199 of 224x224
MOST_DESCRIBED = 10_000
"""Training images, at most, that the OOD detector is fitted on; this takes seconds."""


class Classifier:
    """An image classifier with scikit-learn's interface.

    Args:
        recipe: how to train: the name of a recipe, such as "fast" or "transfer", or a `Recipe`. "auto" (default) is
            "transfer" for photos and few images, if the extra `photos` is installed, else "fast".
        model: the name of a network ("mlp", "cnn", or "module:function" in your own code), a `torch.nn.Module` (copied,
            never changed), or a function that creates one from (ImageSpec, number of classes). It takes float32
            (N, C, H, W) from 0 to 1 and returns logits (N, K). It may also be a Keras model on Keras's PyTorch backend,
            with the input shape it was built for. None uses the recipe's network.
        epochs: passes over the training images; None uses the recipe's number.
        seed: determines weights, order, augmentation and split; the same seed, machine and versions give equal models.
            None: 0.
        device: "auto", "cpu" or "cuda".
        split_seed: determines which images are held out; None uses `seed`.
        batch_size, learning_rate, patience, balance: settings of the recipe; see `Recipe`.
        validation: fraction of each class held out for early stopping, calibration and guarantees.
        folds: train on all images, and take calibration and guarantees from this many further trainings, each without
            one fold of the images. 0: hold images out instead. None: 5 for recipe "transfer" and fewer than 2,000
            training images without a validation part, else 0.
        class_weight: scikit-learn's name for `balance`: "balanced" weights images by inverse class frequency; a dict
            {label: weight} weights classes as you choose, others by 1.
        settings: any other settings of the recipe, by name: {"flip": False, "weight_decay": 0.1}.
        loss: a function of logits (N, K) and labels (N,) that returns the loss of each image (N,), or one number; None:
            cross-entropy. See docs/training.md.
        augment: a function of images (N, C, H, W) uint8 and a `torch.Generator` that returns images of the same shape,
            from 0 to 255; applied to training images after the recipe's own augmentation.
        random_state: scikit-learn's name for `seed`.
        verbose: what `fit` writes to stdout. 0: nothing, as in scikit-learn, so that searches stay quiet; 1: a progress
            bar in a terminal and a line per epoch, or about ten if epochs are many and quick; 2: a line per epoch.

    Every parameter can be searched and cloned. Settings that you give are never adapted to the data; the recipe's own
    number of epochs, batch size, learning rate and mirroring may be, and `notes_` says so.

    Attributes:
        classes_: (K,) sorted labels, as given to `fit`; 0..K-1 after fitting a `LabelledImages`.
        class_names_: their K names.
        history_: one `Epoch` per epoch.
        network_: the trained `torch.nn.Module`, or the trained Keras model.
        split_: the training images and the validation images.
        notes_: what training decided automatically, in sentences.

    >>> from hangtag import ImageClassifier
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> images = (digits.images * 15.9375).astype("uint8")                           # (1797, 8, 8)
    >>> clf = ImageClassifier(recipe="tutorial").fit(images[:1500], digits.target[:1500])
    >>> bool(clf.score(images[1500:], digits.target[1500:]) > 0.8)
    True
    """

    _not_fitted: ClassVar[type[RunError]] = RunError  # the exception that says so
    _tries_export = True  # of a custom network, before training

    def __init__(
        self,
        recipe: str | Recipe = AUTO,
        model: str | nn.Module | Callable[[ImageSpec, int], nn.Module] | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        device: str = "auto",
        split_seed: int | None = None,
        *,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        validation: float | None = None,
        folds: int | None = None,
        patience: int | None = None,
        balance: str | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        settings: Mapping[str, Any] | None = None,
        loss: Loss | None = None,
        augment: Augment | None = None,
        random_state: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.split_seed = split_seed
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation = validation
        self.folds = folds
        self.patience = patience
        self.balance = balance
        self.class_weight = class_weight
        self.settings = settings
        self.loss = loss
        self.augment = augment
        self.random_state = random_state
        self.verbose = verbose

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, by name."""
        return {name: getattr(self, name) for name in inspect.signature(Classifier).parameters}

    def fit(
        self,
        X: LabelledImages | Images,
        y: Any = None,
        sample_weight: Any = None,
        validation_data: LabelledImages | tuple[Any, Any] | None = None,
        verbose: int | None = None,
    ) -> Self:
        """Train on a `LabelledImages`, or on images (N, H, W[, 3]) uint8 and labels (N,).

        If a training fails, the classifier is not fitted, even if it was before.

        Args:
            sample_weight: (N,) how much each image counts in the loss, relative to the others; 0 leaves it out. Classes
                are then weighted only if you choose it.
            validation_data: images and labels, or a `LabelledImages`, to hold out; then none of `X` is held out.
            verbose: overrides the constructor's for this call.

        Raises:
            DataError, PictureError: the images, labels or weights cannot be used.
            UsageError: a parameter is invalid, or two contradict each other.
            ModelError: the network does not fit the images, or training diverged.
        """
        epochs = self.fit_epochs(X, y, sample_weight=sample_weight, validation_data=validation_data)
        verbose = self.verbose if verbose is None else verbose
        show_progress(epochs, verbose, lambda: self.notes_)
        self.cross_fit(progress=folds_progress(verbose))
        return self

    def fit_epochs(
        self,
        X: LabelledImages | Images,
        y: Any = None,
        stop: Callable[[], bool] = lambda: False,
        checkpoint_writer: CheckpointWriter | None = None,
        resume: Checkpoint | None = None,
        history: Sequence[Epoch] = (),
        *,
        sample_weight: Any = None,
        validation_data: LabelledImages | tuple[Any, Any] | None = None,
    ) -> Iterator[Epoch]:
        """`fit` as an iterator over its progress. You can leave it at any time and keep the weights trained so far.

        Args:
            stop: called several times per second; training ends when it returns True.
            checkpoint_writer: saves checkpoints at intervals.
            resume: where to resume, with the `history` of the epochs before.
            sample_weight, validation_data: as for `fit`.
        """
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)  # so that a failed fit leaves no earlier model behind
        try:
            yield from self._fit_epochs(X, y, stop, checkpoint_writer, resume, history, sample_weight, validation_data)
        except Exception:
            self._failed = True
            raise

    def _fit_epochs(
        self, X: LabelledImages | Images, y: Any, stop: Callable[[], bool], checkpoint_writer: CheckpointWriter | None,
        resume: Checkpoint | None, history: Sequence[Epoch], sample_weight: Any,
        validation_data: LabelledImages | tuple[Any, Any] | None,
    ) -> Iterator[Epoch]:  # fmt: skip
        seed, split_seed, _ = seed_of(self), split_seed_of(self), self.chosen_recipe()  # errors before the images
        given = self._prepare(X, y)
        self._chosen, choice_note = self._choice(given)
        recipe = self._chosen
        device = choose_device(self.device)
        image_weights = self._image_weights(given, sample_weight)
        if validation_data is not None:
            given, recipe = self._with_validation(given, recipe, validation_data), replace(recipe, validation=0.0)
        if image_weights is not None and recipe.balance == "auto":
            recipe = replace(recipe, balance="off")  # automatic weights would be applied on top of the user's own
        recipe, folds = with_checked_folds(recipe, given)
        _check_settings(recipe, given)
        images, labels = given.train.images[:_TRIAL_IMAGES], given.train.labels[:_TRIAL_IMAGES]
        if self.augment is not None:
            check_augment(self.augment, channels_first(torch.from_numpy(np.array(images))).to(device))
        weighted = image_weights is not None
        recipe, loss_note = suit_loss(recipe, self.loss, labels, len(given.class_names), device, weighted)
        data, weights = self._divide(given, recipe, folds, split_seed, image_weights)
        train_positions = self.split_.train
        recipe, size_note = adapt_to_size(recipe, len(train_positions))
        recipe, rate_note = adapt_to_pixels(recipe, math.prod(data.spec.shape))
        recipe, mirror_note = choose_flip(recipe, data, train_positions)
        counts = np.bincount(data.labels[train_positions], minlength=len(data.class_names))
        recipe = self.recipe_ = replace(recipe, balance=choose_balance(recipe, counts))
        balanced = balance_note(recipe.balance, counts, data.class_names)
        notes = [choice_note, size_note, rate_note, balanced, mirror_note, loss_note]
        if recipe.bfloat16 and not has_bfloat16(device.type):
            notes.append("this processor has no bfloat16 arithmetic: training uses float32, which is slower")
        self.notes_ = [note for note in (*notes, *self.split_.notes) if note]
        self.module_ = self._build_network(data, recipe)
        self.notes_ += self.module_.notes if isinstance(self.module_, FrozenNetwork) else keras_notes(self.module_)
        for note in self.notes_:
            logger.info(note)
        self.history_: list[Epoch] = list(history)
        self._failed = False
        training, self._held_out = (part_of(data, part) for part in (train_positions, self.split_.validation))
        self._kept_images = _KeptImages.of(data, train_positions, seed)
        most = _VERIFIED_PIXELS // math.prod(data.spec.shape[:2])
        self._sample = np.array(data.images[: min(VERIFIED, max(_TRIAL_IMAGES, most))])
        self._forget_model()
        is_custom = not recipe.backbone and self.network_name() not in NETWORKS
        if resume is None and self._tries_export and is_custom:
            self._check_export()
        try:
            for epoch in self._steps(data, training, recipe, weights, device, stop, checkpoint_writer, resume):
                self._forget_model()
                if epoch.finished:
                    self.history_.append(epoch)
                yield epoch
        finally:  # also when the caller leaves early
            self.module_.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def _steps(
        self, data: LabelledImages, training: Labelled, recipe: Recipe, weights: NDArray[np.float32] | None,
        device: torch.device, stop: Callable[[], bool], checkpoint_writer: CheckpointWriter | None,
        resume: Checkpoint | None,
    ) -> Iterator[Epoch]:  # fmt: skip
        seed = seed_of(self)
        if not isinstance(self.module_, FrozenNetwork):
            yield from train(
                self.module_, *training, recipe, seed, self._held_out, device, stop, checkpoint_writer, resume, weights,
                self.loss, self.augment,
            )  # fmt: skip
            return
        yield from fit_frozen(self.module_, data, self.split_, recipe, seed, weights, stop)
        if recipe.fine_tune and not stop():
            self.module_, note = yield from fine_tune(
                self.module_, data.spec, training, self._held_out, recipe, seed, weights, device, stop
            )
            self.notes_.append(note)

    def _divide(
        self, given: LabelledImages, recipe: Recipe, folds: int, seed: int, image_weights: NDArray[np.float64] | None
    ) -> tuple[LabelledImages, NDArray[np.float32] | None]:
        """Set `split_` and the folds; returns the images and the weights of the training images."""
        data, self.split_ = split_of(given, recipe.validation, seed)
        weights = None
        if image_weights is not None:
            self.split_, weights = without_weightless(self.split_, image_weights)
        self._pool: LabelledImages | None = None
        self._folds: Folds | None = None
        self._crossed: CrossFit | None = None
        if folds:
            train = self.split_.train
            self._pool = data.take(train)
            self._pool_weights = None if image_weights is None else image_weights[train]
            self._folds = folds_of(self._pool, folds, seed)
            self.split_ = with_folds(self.split_, self._folds)
        return data, weights

    def cross_fit(self, stop: Callable[[], bool] = lambda: False, progress: Progress | None = None) -> None:
        """Train a network without each fold, if the recipe has folds and this was not done yet; `fit` does it.

        Args:
            stop: called several times per second; when it returns True, only the finished folds count.
            progress: called with the number of the fold, the number of folds, and the state of its training.
        """
        self._require_fitted()
        if self._folds is None or self._pool is None or self._crossed is not None:
            return
        epochs = max((epoch.number for epoch in self.history_), default=0)
        self._forget_model()
        self._crossed = cross_fit(
            self, self._for_fold, self._pool, self._folds, self._pool_weights, epochs, stop, progress
        )  # fmt: skip

    @property
    def folds_finished_(self) -> int:
        """Number of folds that judge the model; 0 before `cross_fit`, and without folds."""
        return self._crossed.count if self._crossed is not None else 0

    def _for_fold(self, images: LabelledImages) -> "Classifier":
        """An unfitted classifier with the same settings for some of the images, which holds nothing out."""
        own = dict.fromkeys((*_SETTINGS, "balance", "class_weight", "settings"))
        own |= {"recipe": without_own_split(self._chosen, len(images)), "verbose": 0}
        network = None if isinstance(self.model, str) else self.model
        fold = Classifier(**{**self.arguments(), **own, "model": network})
        fold._tries_export = False
        return fold

    def _forget_model(self) -> None:
        """Forget everything that was derived from earlier weights."""
        self._content: bytes | None = None
        self._predictor: Predictor | None = None
        self._export: _Exported | None = None

    def predict_proba(self, X: "LabelledImages | Pictures") -> NDArray[np.float32]:
        """(N, K) probabilities from the exported file, columns in the order of `classes_`.

        Args:
            X: a `LabelledImages`, images (N, H, W[, 3]), or paths, bytes, open files and PIL images of any sizes. The
                row of one that cannot be read is NaN, and a `HangtagWarning` names it.
        """
        predictor = self.predictor_
        if isinstance(X, LabelledImages):
            return predictor.probabilities(X.images)
        images = many_images(X, width=self.spec_.width)
        return predictor.predict_proba(images) if are_files(images) else predictor.probabilities(images)

    def predict(self, X: "LabelledImages | Pictures") -> NDArray[Any]:
        """(N,) labels of the type given to `fit`; None for a picture that cannot be read.

        `X` as for `predict_proba`.
        """
        rows = self.predict_proba(X)  # first: it raises an error if the classifier is not fitted
        labels: NDArray[Any] = self.classes_[rows.argmax(axis=1)]
        unread = np.isnan(rows[:, 0])
        if unread.any():
            labels = labels.astype(object)
            labels[unread] = None
        return labels

    def evaluate(self, X: LabelledImages | Images, y: Any = None) -> Evaluation:
        """Evaluate the classifier on images it was not trained on; classes are matched by name.

        Images of classes that the model does not know are counted apart, in `Evaluation.strangers`.

        Raises:
            DataError: no label is known, or their number differs from that of the images.
        """
        self._require_fitted()
        if not isinstance(X, LabelledImages):
            X = self._labelled(X, y)
        elif y is not None:
            check_same_labels(X, y)
        return Judgement.of(self.predictor_, "given", X, self.training_accuracy_, None).evaluation

    def save(self, path: str | Path) -> None:
        """Write the model file, which `hangtag.load` opens without PyTorch."""
        write_bytes(user_path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """The model file, verified on some training images to answer as the network does."""
        self._require_fitted()
        if self._content is None:
            content = with_metadata(self._exported().content, self.metadata())
            artifact = open_artifact(content)
            heads = self._exported().fold_heads
            verify(artifact, self.shipped_, self._sample, self.ood_detector_, self.features_device_, heads)
            self._content, self._predictor = content, Predictor(artifact)
        return self._content

    def validation_logits(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Logits (V, K) of the held-out images before calibration, and their classes (V,)."""
        self._require_fitted()
        images, labels = self._held_out
        return extract_features(self.shipped_, images, self.features_device_).logits, labels

    def neighbours(self, count: int = KEPT) -> Neighbours:
        """At most `count` (never more than `KEPT`) training images, reduced in size, with the network's embeddings."""
        self._require_fitted()
        if not hasattr(self, "_kept_images"):
            raise RunError("a classifier that was pickled has no training images", "fit it again")
        kept = self._kept_images
        pictures, labels = kept.at(chosen(kept.labels, seed_of(self), min(count, KEPT)))
        features = extract_features(self.shipped_, pictures, self.features_device_)
        return Neighbours.of(pictures, labels, features.embedding)

    @property
    def guarantees_(self) -> Guarantees:
        """What the model guarantees about its answers, fitted on the held-out images."""
        self._require_fitted()
        return self._exported().guarantees

    @property
    def answers_of_folds_(self) -> CrossValidation | None:
        """What the folds' networks answered for the images that they were trained without; None without folds."""
        self._require_fitted()
        return self._exported().answers_of_folds

    @property
    def ood_detector_(self) -> OodDetector:
        """Recognises images unlike the training images."""
        self._require_fitted()
        return self._exported().ood_detector

    def _exported(self) -> "_Exported":
        """Export the network, and set its guarantees on what the exported file answers for the held-out images."""
        if self._export is None:
            kept = self._kept_images
            pictures, classes = kept.at(_described(len(kept.labels), seed_of(self)))
            trained = extract_features(self.shipped_, pictures, self.features_device_)
            answers_of_folds, heads = None, None
            if self._folds is not None:
                self.cross_fit()
            if self._crossed is not None:
                fitted = self._crossed.fitted(pictures, trained, classes, self.class_names_)
                guarantees, ood_detector, answers_of_folds = fitted.guarantees, fitted.ood_detector, fitted.answers
                heads = self._crossed.heads if guarantees.needs_folds else None
                content = export_model(self.shipped_, self._metadata(guarantees), ood_detector, heads)
            else:
                content, guarantees, ood_detector = self._with_held_out(pictures, trained, classes)
            answers = guarantees.calibrator(log_softmax(trained.logits)).argmax(axis=1)
            accuracy = float((answers == classes).mean())
            appearance = fit_appearance(pictures)
            self._export = _Exported(content, guarantees, ood_detector, accuracy, heads, answers_of_folds, appearance)
        return self._export

    def _with_held_out(
        self, pictures: Images, trained: Features, classes: NDArray[np.int64]
    ) -> tuple[bytes, Guarantees, OodDetector]:
        """The file, and what its answers for the held-out images guarantee; `trained` are features of `pictures`."""
        images, labels = self._held_out
        held_out = extract_features(self.shipped_, images, self.features_device_)
        ood_detector = fit_ood_detector(
            pictures, trained.descriptor, classes, images, held_out.descriptor, held_out.logits
        )
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
        return content, guarantees, ood_detector

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
        return self._metadata(self.guarantees_, self._exported().appearance)

    def _metadata(self, guarantees: Guarantees | None, appearance: Appearance | None = None) -> Metadata:
        backbone = self.module_.record if isinstance(self.module_, FrozenNetwork) else None
        return Metadata(
            class_names=self.class_names_,
            image=self.spec_,
            network=self.network_name(),
            parameters=parameter_count(self.module_),
            recipe=self.recipe_.to_json(),
            seed=seed_of(self),
            data=self._data_summary,
            versions=versions(),
            created=now(),
            guarantees=guarantees,
            pooling="max" if backbone is None else "mean",
            backbone=backbone,
            appearance=appearance,
        )

    @property
    def predictor_(self) -> Predictor:
        """The opened model file."""
        content = self.to_bytes()
        if self._predictor is None:
            self._predictor = load(content)
        return self._predictor

    @property
    def network_(self) -> nn.Module:
        """The trained network; a Keras model without the adapter, `module_`, that the engine trains."""
        self._require_fitted()
        return own_network(self.module_)

    @property
    def shipped_(self) -> nn.Module:
        """What the model file computes: the trained network, averaged over mirror images if the recipe says so."""
        self._require_fitted()
        return FlipTTA(self.module_) if self.recipe_.uses_flip_tta else self.module_

    @property
    def features_device_(self) -> torch.device:
        """Where the trained network computes: as in training, or the CPU on a machine without that device."""
        try:
            return choose_device(self.device)
        except UsageError:
            return torch.device("cpu")

    @property
    def training_accuracy_(self) -> float | None:
        """Accuracy of the calibrated model on at most `MOST_DESCRIBED` training images, without augmentation."""
        return self._exported().training_accuracy if self.__sklearn_is_fitted__() else None

    def summary(self) -> "Summary":
        """The network, layer by layer, with its weights counted; it prints as a table."""
        self._require_fitted()
        return Summary(self.network_name(), tuple(layers(self.module_, self.spec_)), parameter_count(self.module_))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_") and not self._failed

    def _require_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            failed = "the last call of fit failed" if getattr(self, "_failed", False) else "call fit first"
            raise self._not_fitted("this classifier is not fitted", failed)

    def __getstate__(self) -> dict[str, Any]:
        if self.__sklearn_is_fitted__():
            self._exported()  # needs images that are not pickled
        state = dict(cast(Mapping[str, Any], super().__getstate__()))
        for name in ("_kept_images", "_held_out", "_pool", "_pool_weights", "_crossed"):
            state.pop(name, None)
        return state | {"_predictor": None}  # an ONNX Runtime session cannot be pickled

    def _prepare(self, X: LabelledImages | Images, y: Any) -> LabelledImages:
        if isinstance(X, LabelledImages):
            data = X
            if y is not None:
                check_same_labels(X, y)
            if X.parts and "train" not in X.parts:
                raise DataError(f"{X.name} has no training part", f"it has {', '.join(X.parts)}")
            self.classes_: NDArray[Any] = np.arange(len(data.class_names))
        else:
            if y is None:
                raise DataError("labels are missing", "call fit(images, labels), or fit(hangtag.read(data))")
            images = many_images(X, labels=y)
            data = from_arrays(images, y, natural_order=False)  # sorted as classes_, which scikit-learn requires
            self.classes_ = np.unique(np.asarray(one_column(y)))
        self.class_names_ = data.class_names
        self.spec_ = data.spec
        train = data.train
        if not len(train):
            raise DataError(
                f"{data.name} has no training images", "add a part called train, or give data without parts"
            )
        self._data_summary = {"name": train.name, "fingerprint": train.fingerprint, "images": len(train)}
        return data

    def chosen_recipe(self, data: LabelledImages | None = None) -> Recipe:
        """The recipe with the constructor's settings applied.

        Args:
            data: what to choose a recipe for if it is "auto"; None: many small images.

        Raises:
            UsageError: a setting is invalid, or two contradict each other.
        """
        return self._choice(data)[0]

    def _choice(self, data: LabelledImages | None) -> tuple[Recipe, str]:
        """`chosen_recipe`, and a note on why."""
        own = {
            "network": self.model if isinstance(self.model, str) else None,
            "balance": self._balance(),
            **{name: getattr(self, name) for name in _SETTINGS},
        }
        settings = self.settings or {}
        if not isinstance(settings, Mapping):
            raise UsageError(f"settings must be a dict, got {settings!r}", "for example settings={'flip': False}")
        for name, value in settings.items():
            check_not_two(name, own.get(name), value)
        recipe, note = self.recipe, ""
        own_code = any(value is not None for value in (self.model, self.loss, self.augment))
        if recipe == AUTO:
            given = {*settings, *(name for name, value in own.items() if value is not None)}
            recipe = "transfer" if "backbone" in given else DEFAULT
            if data is not None and recipe == DEFAULT and not own_code:
                recipe, note = choose_recipe(data, given)
        recipe = find_recipe(changed(find_recipe(recipe), settings), **own)
        if recipe.backbone and own_code:
            raise UsageError(
                f"recipe '{recipe.name}' trains no network, so it takes no model, loss or augmentation",
                "leave them out, or use recipe 'fast'",
            )
        return recipe, note

    def _balance(self) -> str | None:
        """`balance`, or what `class_weight` means for it."""
        if self.class_weight is None:
            return self.balance
        if not isinstance(self.class_weight, Mapping) and self.class_weight != "balanced":
            raise UsageError(
                f"class_weight must be 'balanced', a dict or None, got {self.class_weight!r}",
                "for example class_weight={'cat': 2.0}",
            )
        meaning = "off" if isinstance(self.class_weight, Mapping) else "weights"
        if self.balance not in (None, meaning):
            raise UsageError(
                f"class_weight and balance={self.balance!r} contradict each other", "give only one of them"
            )
        return meaning

    def _image_weights(self, data: LabelledImages, sample_weight: Any) -> NDArray[np.float64] | None:
        """(M,) the weight of each training image, from `sample_weight` and a dict of `class_weight`; or None."""
        train = data.positions("train") if data.parts else np.arange(len(data))
        weights = None
        if sample_weight is not None:
            weights = checked_weights(sample_weight, len(data))[train]
        if isinstance(self.class_weight, Mapping):
            by_class = np.ones(len(data.class_names))
            known = self._label_positions()
            for label, weight in self.class_weight.items():
                if label not in known:
                    raise UnknownName.among("class in class_weight", str(label), self.class_names_)
                by_class[known[label]] = checked_weights([weight], 1)[0]
            weights = by_class[data.labels[train]] * (1 if weights is None else weights)
        if weights is not None and not weights.any():
            raise DataError("every training image has weight 0", "give some images a weight above 0")
        return weights

    def _with_validation(
        self, data: LabelledImages, recipe: Recipe, validation_data: LabelledImages | tuple[Any, Any]
    ) -> LabelledImages:
        """The training images, and `validation_data`, in any of its forms, as their validation part."""
        if "validation" in data.parts:
            raise UsageError(f"{data.name} has a validation part already", "leave validation_data out")
        if "validation" in recipe.given and recipe.validation:
            raise UsageError(
                f"validation={recipe.validation:g} and validation_data contradict each other", "give only one of them"
            )
        if isinstance(validation_data, LabelledImages):
            held_out = validation_data.validation if validation_data.parts else validation_data
        elif isinstance(validation_data, tuple | list) and len(validation_data) == 2:
            held_out = self._labelled(*validation_data)
        else:
            raise UsageError("validation_data must be (images, labels) or a LabelledImages", "give both in a tuple")
        return with_validation(data, held_out)

    def _build_network(self, data: LabelledImages, recipe: Recipe) -> nn.Module:
        classes = len(data.class_names)
        if recipe.backbone:
            return build_frozen(recipe.backbone, data.spec, classes)
        if self.model is None or isinstance(self.model, str):
            return build_network(recipe.network, data.spec, classes, seed_of(self))
        return custom_network(self.model, data.spec, classes, seed_of(self))

    def network_name(self) -> str:
        """The name of a built-in or imported network, or the class of a custom one."""
        if self.model is None or isinstance(self.model, str):
            return self.recipe_.network
        return type(user_network(self.module_)).__name__

    def _label_positions(self) -> dict[Any, int]:
        """The position of each class, by its name and by its label."""
        names = {name: position for position, name in enumerate(self.class_names_)}
        return names | {label: position for position, label in enumerate(self.classes_.tolist())}

    def _labelled(self, X: Images, y: Any) -> LabelledImages:
        """Images with labels as given to `fit`, or names of classes; labels that are unknown become further classes."""
        if y is None:
            raise DataError("labels are missing", "give images and labels, or a LabelledImages")
        images = check_images(many_images(X, width=self.spec_.width), spec=self.spec_)
        given = np.asarray(one_column(y))
        if given.shape != (len(images),):
            raise DataError(
                f"{len(images):,} images but labels of shape {given.shape}", "give one label for each image"
            )
        labels, names, known = given.tolist(), list(self.class_names_), self._label_positions()
        for label in sorted(set(labels) - known.keys(), key=lambda label: natural(str(label))):
            name = str(label)
            if name in names and self.classes_.dtype.kind == "i":
                raise DataError(
                    f"label {name} is not a position from 0 to {len(self.classes_) - 1}, but the name of a class",
                    f"give names: '{name}'",
                )
            if name not in names:
                names.append(name)
            known[label] = names.index(name)
        positions = np.array([known[label] for label in labels], np.int64)
        return LabelledImages(images, positions, tuple(names))


@dataclass(frozen=True)
class Summary:
    """A network, layer by layer; as text, a table.

    Attributes:
        network: its name.
        layers: in execution order.
        parameters: number of weights.
    """

    network: str
    layers: tuple[Layer, ...]
    parameters: int

    def __repr__(self) -> str:
        rows = [("layer", "kind", "output", "parameters")]
        rows += [(row.name, row.kind, " x ".join(map(str, row.shape)), f"{row.parameters:,}") for row in self.layers]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, f"{self.network}: {self.parameters:,} parameters"])


@dataclass(frozen=True, eq=False)
class _Exported:
    """A model file, which lacks only its final metadata, and what was measured for them."""

    content: bytes
    guarantees: Guarantees
    ood_detector: OodDetector
    training_accuracy: float
    fold_heads: FoldHeads | None
    answers_of_folds: CrossValidation | None
    appearance: Appearance


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


def seed_of(classifier: Classifier) -> int:
    """The seed of a training: `seed`, or `random_state`, or 0.

    Raises:
        UsageError: a seed is invalid, or the two differ.
    """
    one, other = (_checked_seed(name, getattr(classifier, name)) for name in ("seed", "random_state"))
    check_not_two("the seed", one, other)
    return next((seed for seed in (one, other) if seed is not None), 0)


def split_seed_of(classifier: Classifier) -> int:
    """The seed that determines which images are held out."""
    own = _checked_seed("split_seed", classifier.split_seed)
    return seed_of(classifier) if own is None else own


def _checked_seed(name: str, seed: Any) -> int | None:
    if seed is not None and not (isinstance(seed, Integral) and 0 <= int(seed) < 2**63):
        raise UsageError(f"{name} must be a whole number from 0 to 2^63 - 1, got {seed!r}", f"for example {name}=0")
    return None if seed is None else int(seed)


def _check_settings(recipe: Recipe, data: LabelledImages) -> None:
    """Raise UsageError if a setting does not fit the data.

    The batch size of a named recipe shrinks for small data; one that the user chose does not.
    """
    images = len(data.train)
    if recipe.batch_size > images and is_given(recipe, "batch_size"):
        raise UsageError(
            f"batch_size must be at most {images:,}, the number of training images, got {recipe.batch_size:,}",
            f"use a smaller one, such as {max(1, images // 10)}",
        )
    if recipe.patience and not recipe.validation and "validation" not in data.parts:
        raise UsageError(
            f"patience={recipe.patience} needs held-out images, but recipe '{recipe.name}' holds out none",
            "hold some out: --set validation=0.1 (in Python validation=0.1)",
        )


def part_of(data: LabelledImages, positions: NDArray[np.int64]) -> tuple[Images | MappedRows, NDArray[np.int64]]:
    """Images and labels at these positions; images of a large memory-mapped file stay in it."""
    labels = data.labels[positions]
    if data.images.nbytes > _IN_MEMORY and mapping_of(data.images) is not None:
        return MappedRows(data.images, positions), labels
    return data.images[positions], labels
