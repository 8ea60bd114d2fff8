"""`Classifier`: fit, predict, save; `estimator.py` makes it an estimator of scikit-learn.

It does without scikit-learn, whose import takes as long as training a small network; the command line uses it directly.
PyTorch trains; every prediction comes from the exported file through ONNX Runtime, so that what is judged is what is
shipped. Only `save` writes a file.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hangtag.data.folds import Folds, folds_of
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import split_of
from hangtag.errors import RunError, UsageError, logger, warn
from hangtag.evaluation.cross_validation import CrossValidation
from hangtag.evaluation.judge import Judgement
from hangtag.evaluation.metrics import Evaluation
from hangtag.files import user_path, write_bytes
from hangtag.machine import now, versions
from hangtag.model.artifact import Metadata, open_artifact
from hangtag.model.guarantees import Guarantees
from hangtag.model.neighbours import KEPT, Neighbours
from hangtag.model.ood import OodDetector
from hangtag.model.predictor import Pictures, Predictor, load
from hangtag.pictures import Images, many_images
from hangtag.training.arguments import SETTINGS, Arguments, check_settings, seed_of, split_seed_of
from hangtag.training.choose_recipe import why_too_small
from hangtag.training.cross_fit import (
    CrossFit,
    CrossFitting,
    FoldRunner,
    KeptFolds,
    Progress,
    cross_fit,
    in_turn,
    with_checked_folds,
    with_folds,
    without_own_split,
)
from hangtag.training.engine.build import build_network, custom_network
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter
from hangtag.training.engine.custom import check_augment, suit_loss
from hangtag.training.engine.export import verify, with_metadata
from hangtag.training.engine.frozen import FrozenNetwork
from hangtag.training.engine.inference import extract_features
from hangtag.training.engine.keras_model import keras_notes, own_network, user_network
from hangtag.training.engine.loop import Epoch, Labelled, choose_device, train
from hangtag.training.engine.networks import NETWORKS, FlipTTA, Summary, channels_first, layers, parameter_count
from hangtag.training.engine.recipes import (
    Recipe,
    adapt_to_pixels,
    adapt_to_size,
)
from hangtag.training.engine.sampling import balance_note, choose_balance
from hangtag.training.engine.steps import has_bfloat16
from hangtag.training.exported import Exported, KeptImages, check_exportable, export_trained, sample_of
from hangtag.training.fit_input import (
    are_files,
    check_same_labels,
    image_weights,
    labelled,
    part_of,
    to_train_on,
    with_validation,
    without_weightless,
)
from hangtag.training.fit_progress import folds_progress, show_progress
from hangtag.training.mirroring import choose_flip
from hangtag.training.scenes import same_scenes
from hangtag.training.shared import OnWorkers, check_shareable
from hangtag.training.transfer import build_frozen, fine_tune, fit_frozen

__all__ = ["Classifier"]


_TRIED = 16  # images that custom losses and augmentations are tried on


class Classifier(Arguments):
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
        folds_finished_: number of folds that judge the model; 0 without folds.
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
        if isinstance(X, LabelledImages) and self.chosen_recipe(X).backbone and (advice := why_too_small(X)):
            warn(advice)
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
        workers: OnWorkers | None = None,
    ) -> Iterator[Epoch]:
        """`fit` as an iterator over its progress. You can leave it at any time and keep the weights trained so far.

        Args:
            stop: called several times per second; training ends when it returns True.
            checkpoint_writer: saves checkpoints at intervals.
            resume: where to resume, with the `history` of the epochs before.
            sample_weight, validation_data: as for `fit`.
            workers: what trains the network on several workers; None: this process trains it.
        """
        self._workers = workers
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)  # so that a failed fit leaves no earlier model behind
        try:
            yield from self._fit_epochs(X, y, stop, checkpoint_writer, resume, history, sample_weight, validation_data)
        except Exception:
            self._failed = True
            raise
        finally:
            self._workers = None

    def _fit_epochs(
        self, X: LabelledImages | Images, y: Any, stop: Callable[[], bool], checkpoint_writer: CheckpointWriter | None,
        resume: Checkpoint | None, history: Sequence[Epoch], sample_weight: Any,
        validation_data: LabelledImages | tuple[Any, Any] | None,
    ) -> Iterator[Epoch]:  # fmt: skip
        seed, split_seed, _ = seed_of(self), split_seed_of(self), self.chosen_recipe()  # errors before the images
        given, self.classes_ = to_train_on(X, y)
        self.class_names_, self.spec_, train_part = given.class_names, given.spec, given.train
        self._data_summary = {
            "name": train_part.name, "fingerprint": train_part.fingerprint, "images": len(train_part),
        }  # fmt: skip
        self._chosen, choice_note = self._choice(given)
        recipe = self._chosen
        device = choose_device(self.device)
        weights_of_all = image_weights(given, self.classes_, sample_weight, self.class_weight)
        if validation_data is not None:
            given = with_validation(given, self.classes_, recipe, validation_data)
            recipe = replace(recipe, validation=0.0)
        if weights_of_all is not None and recipe.balance == "auto":
            recipe = replace(recipe, balance="off")  # automatic weights would be applied on top of the user's own
        recipe, folds = with_checked_folds(recipe, given)
        check_settings(recipe, given)
        if self._workers is not None:
            check_shareable(recipe)
        images, labels = train_part.images[:_TRIED], train_part.labels[:_TRIED]
        if self.augment is not None:
            check_augment(self.augment, channels_first(torch.from_numpy(np.array(images))).to(device))
        weighted = weights_of_all is not None
        recipe, loss_note = suit_loss(recipe, self.loss, labels, len(given.class_names), device, weighted)
        data, weights = self._divide(given, recipe, folds, split_seed, weights_of_all)
        train_positions = self.split_.train
        recipe, notes = _adapted(recipe, data, train_positions, device)
        self.recipe_ = recipe
        self.notes_ = [note for note in (choice_note, *notes, loss_note, *self.split_.notes) if note]
        self.module_ = self._build_network(data, recipe)
        self.notes_ += self.module_.notes if isinstance(self.module_, FrozenNetwork) else keras_notes(self.module_)
        for note in self.notes_:
            logger.info(note)
        self.history_: list[Epoch] = list(history)
        self._failed = False
        training, self._held_out = (part_of(data, part) for part in (train_positions, self.split_.validation))
        self._kept_images = KeptImages.of(data, train_positions, seed)
        self._sample = sample_of(data)
        self._forget_model()
        is_custom = not recipe.backbone and self.network_name() not in NETWORKS
        if resume is None and self._tries_export and is_custom:
            check_exportable(self.shipped_, self._metadata(), self._sample)
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
        if self._workers is not None:
            task = self._workers.task(recipe, seed, self.split_.train, self.split_.validation, self.device)
            yield from self._workers.trainer(task, self.module_, data, stop, checkpoint_writer, resume)
            return
        if not isinstance(self.module_, FrozenNetwork):
            yield from train(
                self.module_, *training, recipe, seed, self._held_out, device, stop, checkpoint_writer, resume, weights,
                self.loss, self.augment,
            )  # fmt: skip
            return
        yield from fit_frozen(self.module_, data, self.split_, recipe, seed, weights, stop)
        self._keep_scenes_together(self.module_)
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
        self._to_cross_fit: tuple[LabelledImages, Folds, NDArray[np.float64] | None] | None = None
        self._crossed: CrossFit | None = None
        self.folds_finished_ = 0
        if folds:
            train = self.split_.train
            images = data.take(train)
            parts = folds_of(images, folds, seed)
            self._to_cross_fit = images, parts, None if image_weights is None else image_weights[train]
            self.split_ = with_folds(self.split_, parts)
        return data, weights

    def _keep_scenes_together(self, network: FrozenNetwork) -> None:
        """Divide the images into folds again if their features say that some show one scene."""
        if network.embed is None or self._to_cross_fit is None or self._to_cross_fit[0].groups is not None:
            return
        images, folds, weights = self._to_cross_fit
        scenes = same_scenes(network.embed(images.images), images.labels)
        if scenes is None:
            return
        parts = folds_of(images, folds.count, split_seed_of(self), scenes)
        own = tuple(note for note in self.split_.notes if note not in folds.notes)
        self.split_ = with_folds(replace(self.split_, notes=own), parts)
        self.notes_ = [*(note for note in self.notes_ if note not in folds.notes), *parts.notes]
        self._to_cross_fit = images, parts, weights

    def cross_fit(
        self,
        stop: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
        run: FoldRunner | None = None,
        kept: KeptFolds | None = None,
    ) -> None:
        """Train a network without each fold, if the recipe has folds and this was not done yet; `fit` does it.

        Args:
            stop: called several times per second; when it returns True, only the finished folds count.
            progress: called with the number of the fold, the number of folds, and the state of its training.
            run: trains the folds, instead of one after the other in this process.
            kept: where finished folds are kept until the run is complete.
        """
        self._require_fitted()
        if self._to_cross_fit is None or self._crossed is not None:
            return
        epochs = max((epoch.number for epoch in self.history_), default=0)
        self._forget_model()
        fitting = CrossFitting(self._for_fold, *self._to_cross_fit, epochs)
        self._crossed = cross_fit(self, fitting, run or in_turn(stop, progress), kept)
        self.folds_finished_ = self._crossed.count if self._crossed is not None else 0

    def _for_fold(self, images: int) -> "Classifier":
        """An unfitted classifier with the same settings for this many of the images, which holds nothing out."""
        own = dict.fromkeys((*SETTINGS, "balance", "class_weight", "settings"))
        own |= {"recipe": without_own_split(self._chosen, images), "verbose": 0}
        network = None if isinstance(self.model, str) else self.model
        fold = Classifier(**{**self.arguments(), **own, "model": network})
        fold._tries_export = False
        return fold

    def _forget_model(self) -> None:
        """Forget everything that was derived from earlier weights."""
        self._content: bytes | None = None
        self._predictor: Predictor | None = None
        self._export: Exported | None = None

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
            X = labelled(X, y, self.spec_, self.class_names_, self.classes_)
        elif y is not None:
            check_same_labels(X, y)
        return Judgement.of(self.predictor_, "given", X, self.training_accuracy_, None).evaluation

    def save(self, path: str | Path) -> None:
        """Write the model file, which `hangtag.load` opens without PyTorch."""
        write_bytes(user_path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """The model file, verified to answer as the network does: on held-out images and, if those are few, others."""
        self._require_fitted()
        if self._content is None:
            content = with_metadata(self._exported().content, self.metadata())
            artifact = open_artifact(content, spins=False)
            exported = self._exported()
            more = self._sample[len(next(iter(exported.held_out.values()))) if exported.held_out else 0 :]
            if len(more):
                verify(
                    artifact, self.shipped_, more, self.ood_detector_, self.features_device_, exported.fold_heads
                )  # fmt: skip
            self._content, self._predictor = content, Predictor(artifact)
        return self._content

    def validation_logits(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Logits (V, K) of the held-out images before calibration, and their classes (V,); with folds, out of fold."""
        self._require_fitted()
        if self._crossed is not None:
            return self._crossed.held_out.logits, self._crossed.labels
        images, labels = self._held_out
        return extract_features(self.shipped_, images, self.features_device_).logits, labels

    def neighbours(self, count: int = KEPT) -> Neighbours:
        """At most `count` (never more than `KEPT`) training images, reduced in size, with the network's embeddings."""
        self._require_fitted()
        embeddings = self._exported().embeddings
        if embeddings is None:
            raise RunError("a classifier that was pickled has no training images", "fit it again")
        places = self._kept_images.neighbours(count)
        return Neighbours.of(*self._kept_images.at(places), embeddings[places])

    @property
    def guarantees_(self) -> Guarantees:
        """What the model guarantees about its answers, fitted on the held-out images."""
        return self._exported().guarantees

    @property
    def answers_of_folds_(self) -> CrossValidation | None:
        """What the folds' networks answered for the images that they were trained without; None without folds."""
        return self._exported().answers_of_folds

    def _known_outputs(self, images: LabelledImages) -> dict[str, NDArray[np.float32]] | None:
        """The file's verified outputs for these images if they are the held-out ones, in their order; else None."""
        rows = self._exported().held_out
        if rows is None or not np.array_equal(self._held_out[1], images.labels):
            return None
        return rows if np.array_equal(np.asarray(self._held_out[0]), images.images) else None

    @property
    def ood_detector_(self) -> OodDetector:
        """Recognises images unlike the training images."""
        return self._exported().ood_detector

    def _exported(self) -> Exported:
        self._require_fitted()
        if self._export is None:
            self.cross_fit()
            self._export = export_trained(
                self.shipped_, self._metadata(), self.features_device_, self._kept_images, self._held_out, self._crossed
            )
        return self._export

    def metadata(self) -> Metadata:
        """The model file's description of itself."""
        exported = self._exported()
        return replace(self._metadata(), guarantees=exported.guarantees, appearance=exported.appearance)

    def _metadata(self) -> Metadata:
        """Without what is known only after the export."""
        backbone = self.module_.record if isinstance(self.module_, FrozenNetwork) else None
        return Metadata(
            class_names=self.class_names_,
            image=self.spec_,
            network=self.network_name(),
            parameters=parameter_count(self.module_),
            recipe=self.recipe_.to_json() | ({"backbone": backbone.name} if backbone else {}),  # without its folder
            seed=seed_of(self),
            data=self._data_summary,
            versions=versions(),
            created=now(),
            pooling="max" if backbone is None else "mean",
            backbone=backbone,
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
        for name in ("_kept_images", "_held_out"):
            state.pop(name, None)
        if state.get("_export") is not None:
            state["_export"] = replace(state["_export"], embeddings=None, held_out=None)
        # an ONNX Runtime session cannot be pickled
        return state | {"_predictor": None, "_to_cross_fit": None, "_crossed": None}

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


def _adapted(
    recipe: Recipe, data: LabelledImages, train: NDArray[np.int64], device: torch.device
) -> tuple[Recipe, list[str]]:
    """The recipe, adapted to the training images at the positions `train`; and notes on this, some of them empty."""
    recipe, size_note = adapt_to_size(recipe, len(train))
    recipe, rate_note = adapt_to_pixels(recipe, math.prod(data.spec.shape))
    recipe, mirror_note = choose_flip(recipe, data, train)
    counts = np.bincount(data.labels[train], minlength=len(data.class_names))
    recipe = replace(recipe, balance=choose_balance(recipe, counts))
    notes = [size_note, rate_note, balance_note(recipe.balance, counts, data.class_names), mirror_note]
    if recipe.bfloat16 and not has_bfloat16(device.type):
        notes.append("this processor has no bfloat16 arithmetic: training uses float32, which is slower")
    return recipe, notes
