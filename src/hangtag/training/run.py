"""One training run, from a new folder to a model that is exported, verified and judged.

It connects the estimator with the run folder. It prints and draws nothing; `cli` and `reports` do.
"""

import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
import torch
from torch import nn

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.read import skipped_table
from hangtag.errors import DataError, DivergedError, HangtagError, ModelError, RunError
from hangtag.evaluation.cross_validation import write_cross_validation
from hangtag.evaluation.drift import write_reference
from hangtag.evaluation.judge import Judgement, data_before_decisions, is_cross_validated, judged_part, read_again
from hangtag.evaluation.run_folder import SKIPPED, STOPPED, TRAINING, Lock, Run, new_run, unfinished
from hangtag.files import remove_partial, write_text
from hangtag.machine import hardware, now, versions
from hangtag.model.neighbours import write_neighbours
from hangtag.model.predictor import Predictor
from hangtag.serializable import checked
from hangtag.training.arguments import seed_of, split_seed_of
from hangtag.training.classifier import Classifier
from hangtag.training.cross_fit import FoldRunner, KeptFolds, Progress, choose_folds
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter, latest
from hangtag.training.engine.custom import full_name
from hangtag.training.engine.export import verify_outputs
from hangtag.training.engine.guard import is_out_of_memory
from hangtag.training.engine.loop import Epoch, choose_device
from hangtag.training.engine.networks import layers, parameter_count
from hangtag.training.engine.recipes import Recipe
from hangtag.training.engine.speed import Speed, speed_of
from hangtag.training.shared import OnWorkers, Trainer
from hangtag.words import amount

__all__ = ["DIVERGED", "NOT_EXPORTED", "Training", "find_planned", "initial_config", "open_run"]

NOT_EXPORTED = "not exported"
"""The status of a run without a model file, because the file did not answer as the network does."""

DIVERGED = "diverged"
"""The status of a run whose loss became NaN or infinite; its weights are the last finite ones."""


FOLDS = "folds"
"""The folder with the answers of finished folds, until a run is complete."""


@dataclass(eq=False)
class Training:
    """One training and its run folder. Create it with `begin` or `resume`.

    Attributes:
        classifier: the estimator to fit.
        data: has a training part. The test part, or else the held-out images, judge the model.
        run: the folder.
        lock: held while this process trains in the folder.
        config: the content of its config.json.
        resumed: whether an earlier process began the run.
        checkpoint: where an interrupted training resumes; None at the first step.
        history: the finished epochs before the checkpoint.
        seconds: duration of each stage.
        speed: of the steps; set by `finish`.
        workers: number of workers that train.
        trainer: trains on them; None: this process trains.
        why_no_folds: why the model is not cross-validated, in a sentence; empty if nobody would expect it.
    """

    classifier: Classifier
    data: LabelledImages
    run: Run
    lock: Lock
    config: dict[str, Any]
    resumed: bool = False
    checkpoint: Checkpoint | None = None
    history: list[Epoch] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    speed: Speed = field(init=False)
    workers: int = 1
    trainer: Trainer | None = None
    why_no_folds: str = ""

    @classmethod
    def begin(
        cls, classifier: Classifier, data: LabelledImages, source: dict[str, Any], out: Path | None
    ) -> "Training":
        """Begin a training, or resume an interrupted one with exactly these settings in the same folder.

        Args:
            classifier: unfitted.
            data: has a training part.
            source: the arguments of `read`, so that a later command can read the data again.
            out: the folder to create; None takes the next free name under runs/.

        Raises:
            DataError: no image is left to judge the model on.
            RunError: `out` holds another run, or another process is training there.
            UsageError: the device is not available.
        """
        choose_device(classifier.device)
        recipe = classifier.chosen_recipe(data)
        folds, why_none = choose_folds(recipe, data)
        if not {"test", "validation"} & data.parts.keys() and not recipe.validation and not folds:
            raise DataError(
                "there are no images to evaluate the model on: no test part, and this recipe holds out no images",
                "hold some out: --set validation=0.1; or cross-validate: --folds 5; or use another recipe",
            )
        own = {"recipe": replace(recipe, folds=folds)}  # not a setting that the user gave
        classifier = Classifier(**classifier.arguments() | own)
        config = initial_config(classifier, data, source)
        run, lock, resumed = open_run(config, out, f"{data.name}-{config['recipe']['name']}")
        if data.source.skipped:
            write_text(run.path / SKIPPED, skipped_table(data))
        training = cls._resume(classifier, data, run, lock) if resumed else cls(classifier, data, run, lock, config)
        training.why_no_folds = why_none
        return training

    @classmethod
    def resume(
        cls,
        run: Run,
        device: str = "auto",
        source: dict[str, Any] | None = None,
        network: str | None = None,
        data: LabelledImages | None = None,
    ) -> "Training":
        """Resume an interrupted or stopped run with the settings it began with.

        Args:
            network: the custom network `module:function` that may be imported; a run folder alone imports nothing.
            source: where the data are now; None if they did not move.
            data: the run's data, if it was read already.

        Raises:
            RunError: it cannot be resumed, or another process is training there.
            UsageError: the device is not available.
            DataError: the data changed.
        """
        run.check_resumable(network)
        config, recipe = run.config(), _recipe(run)
        choose_device(device)
        classifier = Classifier(recipe=recipe, seed=config["seed"], device=device, split_seed=config.get("split_seed"))
        data = read_again(run, source) if data is None else data
        training = cls._resume(classifier, data, run, _lock(run))
        if source is not None:
            training.record(source=source)
        return training

    @classmethod
    def _resume(cls, classifier: Classifier, data: LabelledImages, run: Run, lock: Lock) -> "Training":
        run.check_links()
        checkpoint = latest(run.checkpoints)
        epoch = checkpoint.epoch if checkpoint else 1
        history = run.history() if (run.path / "history.jsonl").is_file() else []
        history = [line for line in history if line["number"] < epoch]
        run.write_history(history)
        where = str(run.path / "history.jsonl")
        epochs = checked(lambda: msgspec.convert(history, list[Epoch]), where, RunError, "start over in another folder")
        training = cls(classifier, data, run, lock, run.config(), True, checkpoint, epochs)
        training.record(status=TRAINING)
        return training

    @property
    def resume_message(self) -> str:
        """Where an interrupted training resumes; empty for a new one."""
        if self.checkpoint is not None:
            before = self.checkpoint.metadata.get("workers", 1)
            other = (
                f"; it was saved by {amount(before, 'worker')}, and the last digits of weights depend on their number"
            )
            return (
                f"resuming from a checkpoint in epoch {self.checkpoint.epoch}{other if before != self.workers else ''}"
            )
        return "this run was interrupted before its first checkpoint, so it starts over" if self.resumed else ""

    def record(self, **facts: Any) -> None:
        """Add facts to config.json."""
        self.config |= facts
        self.run.write_config(self.config)

    def notes(self) -> list[str]:
        """What training decided automatically, in sentences; available after its first step."""
        notes = [*self.classifier.notes_, *([self.why_no_folds] if self.why_no_folds else [])]
        if 0 < (finished := self.classifier.folds_finished_) < self.folds:
            notes.append(
                f"the cross-validation was stopped after {finished} of {self.folds} folds, which judge the model"
            )
        return notes

    def epochs(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Epoch]:
        """Train; write each finished epoch, and regular checkpoints, to the folder."""
        started = time.perf_counter()
        trained = self.resumed
        data, on_workers = self.config["data"], None
        if self.trainer is not None:
            on_workers = OnWorkers(self.trainer, self.config["source"], data["name"], data["fingerprint"])
            self.record(workers=self.workers)
        try:
            for epoch in self.classifier.fit_epochs(
                self.data,
                stop=stop,
                checkpoint_writer=CheckpointWriter(self.run.checkpoints),
                resume=self.checkpoint,
                history=self.history,
                workers=on_workers,
            ):
                trained = True
                if epoch.finished:
                    self.run.add_epoch(epoch.to_json())
                yield epoch
        except DivergedError:  # the same settings would diverge again
            self.run.write_weights(_weights(self.classifier.module_))
            self.record(status=DIVERGED)
            raise
        except HangtagError:
            if not trained:  # refused before the first step: leave no folder
                self.run.discard()
            raise
        in_epochs = sum(epoch.seconds for epoch in self.classifier.history_)  # includes those before the interruption
        self.seconds["train"] = max(time.perf_counter() - started, in_epochs)

    def cross_fit(
        self,
        stop: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
        run: FoldRunner | None = None,
    ) -> None:
        """Train a network without each fold, if the run has folds; `finish` does it if it was not done before.

        Finished folds are kept in the folder `folds` until the run is complete, so that a run that is interrupted here
        continues with the next fold. Arguments as for `Classifier.cross_fit`.
        """
        if not self.folds:
            return
        started = time.perf_counter()
        self.classifier.cross_fit(stop, progress, run, KeptFolds(self.run.path / FOLDS))
        self.seconds["cross-validate"] = time.perf_counter() - started

    @property
    def folds(self) -> int:
        """Number of folds; 0 for a run that is not cross-validated."""
        return self.classifier.split_.folds

    @property
    def can_finish(self) -> bool:
        """Whether anything can judge the model: false if a training with folds was stopped before the first one."""
        return not self.folds or self.classifier.folds_finished_ > 0

    def refuse(self) -> None:
        """End a training that cannot begin; a new folder is removed."""
        self.lock.close()
        if not self.resumed:
            self.run.discard()

    def leave(self) -> None:
        """End a training that was stopped and cannot finish: keep its weights, to be resumed later."""
        self.run.write_weights(_weights(self.classifier.module_))
        self.record(status=STOPPED)
        self.lock.close()

    @property
    def stopped(self) -> bool:
        """Whether training was stopped before its end, so that it can be resumed."""
        last = self.classifier.history_[-1]
        if 0 < self.classifier.folds_finished_ < self.folds:
            return True
        return last.cut_short or (last.number < self.classifier.recipe_.epochs and not last.enough)

    def finish(self) -> Judgement:
        """Export the model, judge it, verify the file on the images that judged it, and complete the folder.

        Raises:
            ModelError: the file does not answer as the network does; the weights are kept.
            SaveError: the disk is full.
        """
        try:
            return self._finish()
        except ModelError as error:
            if not is_out_of_memory(error):  # the same network would fail again
                self.record(status=NOT_EXPORTED)
            raise

    def _finish(self) -> Judgement:
        classifier, started = self.classifier, time.perf_counter()
        self.run.write_weights(_weights(classifier.module_))
        content, predictor = classifier.to_bytes(), classifier.predictor_
        self.seconds["export"] = time.perf_counter() - started
        started = time.perf_counter()
        judgement = self._judged(predictor)
        self.seconds["evaluate"] = time.perf_counter() - started
        self.run.write_metrics(judgement.to_json())
        write_reference(self.run, judgement, predictor)
        self.run.write_model(content)
        batch_size = min(classifier.recipe_.batch_size, len(classifier.split_.train))
        epochs = classifier.history_[len(self.history) :]
        self.speed = speed_of(epochs, batch_size, choose_device(classifier.device))
        if classifier.answers_of_folds_ is not None:
            write_cross_validation(self.run.path, classifier.answers_of_folds_)
        write_neighbours(self.run.path, classifier.neighbours())
        last = classifier.history_[-1]
        self.record(
            status=STOPPED if self.stopped else "finished",
            kept_epoch=last.kept or last.number,
            balance=classifier.recipe_.balance,
            notes=self.notes(),
            network={
                "name": classifier.network_name(),
                "parameters": parameter_count(classifier.module_),
                "layers": [vars(layer) for layer in layers(classifier.module_, classifier.spec_)],
            },
            split=classifier.split_.to_json(),
            **({} if predictor.metadata.backbone is None else {"backbone": predictor.metadata.backbone.to_json()}),
            device=choose_device(classifier.device).type,
            seconds=self.seconds,
            speed=self.speed.to_json(),
            model={"bytes": len(content), "fingerprint": predictor.fingerprint, "sha256": predictor.sha256},
            test_opened=self.config.get("test_opened", []) + ([now()] if judgement.part == "test" else []),
        )
        if not self.stopped:
            CheckpointWriter(self.run.checkpoints).remove()
            KeptFolds(self.run.path / FOLDS).remove()
        self.lock.close()
        return judgement

    def _judged(self, predictor: Predictor) -> Judgement:
        classifier = self.classifier
        answers = classifier.answers_of_folds_
        if answers is not None and is_cross_validated(self.run, self.data):
            return Judgement.of_folds(predictor, answers, self.data.train, classifier.training_accuracy_)
        part, images = judged_part(self.run, self.data)
        before = data_before_decisions(self.config, part)
        known = classifier._known_outputs(images)
        judgement = Judgement.of(predictor, part, images, classifier.training_accuracy_, before, known)
        if known is None:
            verify_outputs(
                judgement.outputs, predictor.metadata, classifier.shipped_, images.images, classifier.ood_detector_,
                classifier.features_device_,
            )  # fmt: skip
        return judgement


def initial_config(classifier: Classifier, data: LabelledImages, source: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a run that begins."""
    counts = {name: data.counts(name).tolist() for name in data.parts} or {"train": data.counts().tolist()}
    if data.source.answers:
        source = {**source, "options": {**data.source.answers, **source.get("options", {})}}
    return {
        "hangtag": versions()["hangtag"],
        "created": now(),
        "status": TRAINING,
        "recipe": classifier.chosen_recipe(data).to_json(),
        "network_from_python": not isinstance(classifier.model, str | None),
        **({"from_python": from_python} if (from_python := _from_python(classifier)) else {}),
        "seed": seed_of(classifier),
        "split_seed": split_seed_of(classifier),
        "source": source,
        "data": {**data.to_json(), "skipped": len(data.source.skipped), "counts": counts},
        "versions": versions(),
        "machine": hardware(),
    }


def _from_python(classifier: Classifier) -> dict[str, Any]:
    """Names of the loss and augmentation, and class weights, which only the Python code that began the run has."""
    given: dict[str, Any] = {
        name: full_name(value) for name in ("loss", "augment") if (value := getattr(classifier, name)) is not None
    }
    if isinstance(classifier.class_weight, Mapping):
        given["class_weight"] = {str(label): float(weight) for label, weight in classifier.class_weight.items()}
    return given


def open_run(config: dict[str, Any], out: Path | None, name: str) -> tuple[Run, Lock, bool]:
    """A new run folder with this config, locked; or an interrupted run with the same config, and True.

    Raises:
        RunError: `out` holds another run, or another process is training there.
    """
    for run in unfinished(out, name):
        differences = _differences(run.config(), config)
        if differences and out is not None:
            raise RunError(
                f"{run.path}: contains an unfinished run with different settings ({'; '.join(differences)})",
                f"resume it: hangtag train --resume {shlex.quote(str(run.path))}; or choose another --out",
            )
        if not differences and not (out is None and run.is_locked()):
            return run, _lock(run), True
    run = new_run(out, name)
    lock = _lock(run)
    run.write_config(config)
    return run, lock, False


def _lock(run: Run) -> Lock:
    """Lock a run's folder and remove files that a killed process left half-written."""
    lock = run.lock()
    if lock is None:
        message = f"{run.path}: another process is training in this folder"
        raise RunError(message, "wait until it ends, or choose another --out")
    for folder in (run.path, run.checkpoints):
        remove_partial(folder)
    return lock


_SEARCH = ("search", "trials", "minutes", "parallel")
"""What determines a search for settings, in config.json under "tuning"."""


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where the configs of two runs differ, in words; empty if both describe the same training.

    >>> begun = {"recipe": {"epochs": 9}, "seed": 0, "data": {"name": "cats", "fingerprint": "1f"}}
    >>> _differences(begun, {**begun, "recipe": {"epochs": 3}, "seed": 1})
    ['epochs 9 there, 3 here', 'seed 0 there, 1 here']
    """
    old_tuning, new_tuning = (config.get("tuning", {}) for config in (old, new))  # its recipe is that before the search
    old, new = (
        {**config, **({"recipe": config["tuning"]["recipe"]} if "tuning" in config else {})} for config in (old, new)
    )
    old_recipe, new_recipe = ({**config.get("recipe", {}), "description": "", "given": []} for config in (old, new))
    pairs = [(name, old_recipe.get(name), new_recipe.get(name)) for name in {**old_recipe, **new_recipe}]
    keys = ["seed", "seeds", "hangtag"] if old.get("seed") != new.get("seed") else ["split_seed", "seeds", "hangtag"]
    pairs += [(key, old.get(key), new.get(key)) for key in keys]
    pairs += [(f"tuning {key}", old_tuning.get(key), new_tuning.get(key)) for key in _SEARCH]
    old_code, new_code = (config.get("from_python", {}) for config in (old, new))
    pairs += [(name, old_code.get(name), new_code.get(name)) for name in {**old_code, **new_code}]
    differences = [f"{name} {before} there, {after} here" for name, before, after in pairs if before != after]
    old_data, new_data = old.get("data", {}), new.get("data", {})
    if old_data.get("fingerprint") != new_data.get("fingerprint"):
        names = f"data {old_data.get('name')} there, {new_data.get('name')} here"
        same = old_data.get("name") == new_data.get("name")
        differences.append(f"{names}; the images or labels differ" if same else names)
    before, after = (", ".join(config.get("recipe", {}).get("given", [])) for config in (old, new))
    if not differences and before != after:  # equal values, but small data may adapt those that were not given
        differences.append(f"settings given there: {before or 'none'}, here: {after or 'none'}")
    return differences


def find_planned(data: LabelledImages, minutes: float, seed: int, out: Path | None) -> Run | None:
    """An interrupted run that this version planned for the same data, time and seed; None if there is no such run."""
    wanted = (minutes, seed, data.fingerprint, versions()["hangtag"])
    for run in unfinished(out, data.name):
        config = run.config()
        minutes_planned, fingerprint = config.get("plan", {}).get("minutes"), config.get("data", {}).get("fingerprint")
        if (minutes_planned, config.get("seed"), fingerprint, config.get("hangtag")) == wanted and not run.is_locked():
            return run
    return None


def _recipe(run: Run) -> Recipe:
    """The recipe in a run's config.json; raises RunError or UsageError if it is invalid."""
    recipe = run.config("recipe")["recipe"]
    where = f"the recipe in {run.path / 'config.json'}"
    return checked(lambda: msgspec.convert(recipe, Recipe), where, RunError, "train again")


def _weights(network: nn.Module) -> bytes:
    """The network's state as safetensors; in training its arrays may be views of one vector, so each is copied."""
    state = network.state_dict()
    return safetensors.torch.save(
        {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    )
