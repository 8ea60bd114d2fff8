"""The life of one run: a folder begun, trained in, its model exported, verified and judged, and judged again later.

It joins the estimator and the run folder. It prints and draws nothing: `cli.py` and `report.py` do.
"""

import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.read import write_skipped
from hangtag.data.splits import split_of
from hangtag.errors import DataError, DivergedError, HangtagError, ModelError, RunError
from hangtag.evaluation.judge import Judgement, data_before_decisions, read_again
from hangtag.evaluation.run_folder import SKIPPED, STOPPED, TRAINING, Lock, Run, new_run, unfinished
from hangtag.files import remove_partial
from hangtag.machine import hardware, now, versions
from hangtag.model.neighbours import write_neighbours
from hangtag.model.predictor import load
from hangtag.training.classifier import ImageClassifier, split_seed_of
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter, latest
from hangtag.training.engine.export import verify
from hangtag.training.engine.guard import is_out_of_memory
from hangtag.training.engine.loop import Epoch, choose_device
from hangtag.training.engine.networks import NETWORKS, layers, parameter_count
from hangtag.training.engine.recipes import Recipe
from hangtag.training.engine.speed import speed_of

__all__ = [
    "DIVERGED",
    "UNSHIPPED",
    "Training",
    "locked",
    "planned_before",
    "unfinished_like",
]

UNSHIPPED = "not exported"
"""The status of a run whose network would not answer from a file as it does; it has no model."""

DIVERGED = "diverged"
"""The status of a run whose loss was no longer a number; its weights are the last good ones."""


class Training:
    """One training and its run folder, from the first byte to the last.

    Args:
        classifier: unfitted.
        data: with a training part; a test part is judged at the end, else the held-out images are.
        source: what `read` was given, so that a later command can read it again.
        out: the folder to make; None takes the next free name under runs/. If an unfinished run of exactly this
            training lies there (it was killed), it is gone on with.

    Raises:
        RunError: `out` holds another run, or another process is training there.
        UsageError: the device is not there.
    """

    def __init__(
        self, classifier: ImageClassifier, data: LabelledImages, source: dict[str, Any], out: Path | None
    ) -> None:
        choose_device(classifier.device)
        _needs_judges(classifier, data)
        self.classifier, self.data = classifier, data
        config = self.config_of(classifier, data, source)
        name = f"{data.name}-{config['recipe']['name']}"
        self.seconds: dict[str, float] = {}
        self.from_checkpoint: Checkpoint | None = None
        self.interrupted = False
        self.history: list[Epoch] = []
        before = unfinished_like(config, out, name)
        if before is not None:
            self._go_on(*before)
            return
        self.run: Run = new_run(out, name)
        self.held = locked(self.run)
        self.config: dict[str, Any] = config
        if data.source.skipped:
            write_skipped(data, self.run.path / SKIPPED)
        self.run.write_config(config)  # last: from now on there is something to go on with

    @staticmethod
    def config_of(classifier: ImageClassifier, data: LabelledImages, source: dict[str, Any]) -> dict[str, Any]:
        """What a run folder says about its training from the beginning."""
        return {
            "hangtag": versions().get("hangtag"),
            "created": now(),
            "status": TRAINING,
            "recipe": classifier.chosen_recipe().to_json(),
            "seed": classifier.seed,
            "split_seed": split_seed_of(classifier),
            "source": source,
            "data": _describe(data),
            "versions": versions(),
            "machine": hardware(),
        }

    @classmethod
    def of(cls, run: Run, device: str = "auto", source: dict[str, Any] | None = None) -> "Training":
        """Go on with a run that was killed, or stopped with Ctrl-C, as it was begun.

        Args:
            source: of its data, where they were moved; None is where they were.

        Raises:
            RunError: it is finished, or another process trains it.
            UsageError: the device is not there.
            DataError: its data changed.
        """
        config = run.config()
        if "seeds" in config:
            raise RunError(f"{run.path}: holds several seeds", "give the command that began it again; it goes on")
        if config.get("status") not in (TRAINING, STOPPED):
            raise RunError(f"{run.path}: this run is {config.get('status')}", "there is nothing left to train")
        try:
            recipe, seed = Recipe(**config["recipe"]), config["seed"]
        except KeyError as error:
            raise RunError(f"{run.path}: its config.json does not hold {error}", "train again") from error
        except TypeError as error:
            raise RunError(f"{run.path}: its recipe is of another version: {error}", "train again") from error
        if recipe.network not in NETWORKS and ":" not in recipe.network:
            raise RunError(f"{run.path}: its network is not one of hangtag's", "go on in Python, with the same network")
        choose_device(device)
        training = cls.__new__(cls)
        training.classifier = ImageClassifier(
            recipe=recipe, seed=seed, device=device, split_seed=config.get("split_seed")
        )
        training.data = read_again(run, source)
        training.seconds = {}
        training._go_on(run, locked(run))
        if source is not None:
            training.say(source=source)
        return training

    def _go_on(self, run: Run, held: Lock) -> None:
        self.interrupted = True
        self.run, self.held, self.config = run, held, run.config()
        self.from_checkpoint = latest(run.checkpoints)
        epoch = self.from_checkpoint.metadata["position"]["epoch"] if self.from_checkpoint else 1
        lines = run.history() if (run.path / "history.jsonl").is_file() else []
        kept = [line for line in lines if line["number"] < epoch]
        self.history = [Epoch(**line) for line in kept]
        run.write_history(kept)
        self.config["status"] = TRAINING
        run.write_config(self.config)

    @property
    def goes_on(self) -> str:
        """Where an interrupted training is taken up, in words; empty for a new one."""
        if self.from_checkpoint is None:
            return "this run was interrupted before its first checkpoint; it begins again" if self.interrupted else ""
        return f"going on from a checkpoint in epoch {self.from_checkpoint.metadata['position']['epoch']}"

    def say(self, **facts: Any) -> None:
        """Keep more facts with the run."""
        self.config |= facts
        self.run.write_config(self.config)

    def notes(self) -> list[str]:
        """What training decided by itself, in sentences; known once it has begun."""
        return self.classifier.notes_

    def epochs(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Epoch]:
        """Train, keeping each finished epoch in the folder, and a checkpoint now and then."""
        began = time.perf_counter()
        self.checkpoint_writer = CheckpointWriter(self.run.checkpoints)
        trained = self.interrupted
        try:
            for epoch in self.classifier.fit_epochs(
                self.data,
                stop=stop,
                checkpoint_writer=self.checkpoint_writer,
                resume=self.from_checkpoint,
                history=self.history,
            ):
                trained = True
                if epoch.finished:
                    self.run.add_epoch(epoch.to_json())
                yield epoch
        except DivergedError:  # the same settings would do so again
            self.run.write_weights(_weights(self.classifier.network_))
            self.config["status"] = DIVERGED
            self.run.write_config(self.config)
            raise
        except HangtagError:
            if not trained:  # refused: the next try is the first
                self.run.discard()
            raise
        before = sum(epoch.seconds for epoch in self.classifier.history_)  # of an interrupted run, by its checkpoints
        self.seconds["train"] = max(time.perf_counter() - began, before)

    @property
    def stopped(self) -> bool:
        """Whether it was left before its end, and can be gone on with."""
        last = self.classifier.history_[-1]
        return last.cut_short or (last.number < self.classifier.recipe_.epochs and not last.enough)

    def finish(self) -> Judgement:
        """Export, verify on the images that are judged, judge, and complete the folder.

        Raises:
            ModelError: the file would not answer as the network does; the weights are kept.
            SaveError: the disk is full.
        """
        try:
            return self._finished()
        except ModelError as error:
            if not is_out_of_memory(error):  # the same network would fail again
                self.say(status=UNSHIPPED)
            raise

    def _finished(self) -> Judgement:
        classifier, began = self.classifier, time.perf_counter()
        self.run.write_weights(_weights(classifier.network_))
        content = classifier.to_bytes()
        self.seconds["export"] = time.perf_counter() - began
        began = time.perf_counter()
        part, data = self._judged()
        verify(content, classifier.shipped_, data.images, classifier.ood_detector_)
        before = data_before_decisions(self.config, part)
        judged = Judgement.of(load(content), part, data, classifier.training_accuracy_, before)
        self.seconds["evaluate"] = time.perf_counter() - began
        self.run.write_metrics(judged.to_json())
        self.run.write_model(content)
        batch_size = min(classifier.recipe_.batch_size, len(classifier.split_.train))
        epochs = classifier.history_[len(self.history) :]
        self.speed = speed_of(epochs, batch_size, choose_device(classifier.device))
        write_neighbours(self.run.path, classifier.neighbours())
        self._complete(content)
        return judged

    def _judged(self) -> tuple[str, LabelledImages]:
        if "test" in self.data.parts:
            return "test", self.data.test
        classifier = self.classifier
        images, split = split_of(self.data, classifier.recipe_.validation, split_seed_of(classifier))
        if not len(split.validation):
            raise DataError(
                "there are no images to judge the model on: no test part, and this recipe holds none out",
                "use another recipe, or data with a test part",
            )
        return "validation", images.take(split.validation)

    def _complete(self, content: bytes) -> None:
        classifier = self.classifier
        split = classifier.split_
        last = classifier.history_[-1]
        self.config |= {
            "status": STOPPED if self.stopped else "finished",
            "kept_epoch": last.kept or last.number,
            "balance": classifier.recipe_.balance,
            "notes": classifier.notes_,
            "network": {
                "name": classifier.network_name(),
                "parameters": parameter_count(classifier.network_),
                "layers": [vars(layer) for layer in layers(classifier.network_, classifier.spec_)],
            },
            "split": split.to_json(),
            "device": choose_device(classifier.device).type,
            "seconds": self.seconds,
            "speed": self.speed.to_json(),
            "model": {"bytes": len(content), "fingerprint": load(content).fingerprint},
            "test_opened": self.config.get("test_opened", []) + ([now()] if "test" in self.data.parts else []),
        }
        self.run.write_config(self.config)
        if not self.stopped:
            self.checkpoint_writer.remove()
        self.held.close()


def locked(run: Run) -> Lock:
    """The lock of a run's folder, for whoever trains there; half-written files of one who was killed are removed.

    Raises:
        RunError: another process has it.
    """
    held = run.lock()
    if held is None:
        raise RunError(f"{run.path}: another process is training here", "wait for it, or name another --out")
    for folder in (run.path, run.checkpoints):
        remove_partial(folder)
    return held


def _needs_judges(classifier: ImageClassifier, data: LabelledImages) -> None:
    """Raises where no image would be left to judge the model on; it is said before the training, not after it."""
    if not {"test", "validation"} & data.parts.keys() and not classifier.chosen_recipe().validation:
        raise DataError(
            "there are no images to judge the model on: no test part, and this recipe holds none out",
            "hold some out: --set validation=0.1; or use another recipe, or data with a test part",
        )


def unfinished_like(config: dict[str, Any], out: Path | None, name: str) -> tuple[Run, Lock] | None:
    """An unfinished run of exactly this training that nobody is working on, now locked for us.

    Raises:
        RunError: `out` holds an unfinished run of another training.
    """
    for run in unfinished(out, name):
        theirs = run.config()
        differ = _differences(theirs, config)
        if differ and out is not None:
            raise RunError(
                f"{run.path}: holds an unfinished run of another training ({'; '.join(differ)})",
                f"go on with it: hangtag train --resume {shlex.quote(str(run.path))}; or choose another --out",
            )
        if not differ and not (out is None and run.is_locked()):
            return run, locked(run)
    return None


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """What another training was begun with that ours is not, each in words; empty where they are the same.

    >>> begun = {"recipe": {"epochs": 9}, "seed": 0, "data": {"name": "cats", "fingerprint": "1f"}}
    >>> _differences(begun, {**begun, "recipe": {"epochs": 3}, "seed": 1})
    ['epochs 9 there, 3 here', 'seed 0 there, 1 here']
    """
    before, here = theirs.get("recipe", {}), ours.get("recipe", {})
    names = [name for name in {**before, **here} if name != "description" and before.get(name) != here.get(name)]
    found = [f"{name} {before.get(name)} there, {here.get(name)} here" for name in names]
    for key in ("seed", "split_seed", "seeds", "hangtag"):
        if theirs.get(key) != ours.get(key) and not (key == "split_seed" and found and found[-1].startswith("seed ")):
            found.append(f"{key} {theirs.get(key)} there, {ours.get(key)} here")
    one, other = theirs.get("data", {}), ours.get("data", {})
    if one.get("fingerprint") != other.get("fingerprint"):
        same = "; the pictures or labels differ" if one.get("name") == other.get("name") else ""
        found.append(f"data {one.get('name')} there, {other.get('name')} here{same}")
    return found


def planned_before(data: LabelledImages, minutes: float, seed: int, out: Path | None) -> Run | None:
    """An unfinished run that was planned for the same data, time and seed, and that nobody is working on."""
    for run in unfinished(out, data.name):
        theirs = run.config()
        wanted = (minutes, seed, data.fingerprint)
        found = (theirs.get("plan", {}).get("minutes"), theirs.get("seed"), theirs.get("data", {}).get("fingerprint"))
        if wanted == found and not run.is_locked():
            return run
    return None


def _weights(network: nn.Module) -> bytes:
    """The network's state as safetensors; in training its arrays may be views of one vector, so each is copied."""
    state = network.state_dict()
    return safetensors.torch.save(
        {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    )


def _describe(data: LabelledImages) -> dict[str, Any]:
    counts = {name: data.counts(name).tolist() for name in data.parts}
    said = data.to_json()
    said["skipped"] = len(data.source.skipped)
    return {**said, "counts": counts or {"train": data.counts().tolist()}}
