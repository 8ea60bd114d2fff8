"""A search over a recipe's settings: trials are proposed, trained and pruned; the model gets the best settings.

    tuning.json, trials.csv    the results of all finished trials
    trials/7/                  a trial in progress, with its checkpoints
    everything else            the run that was trained with the best setting: an ordinary run

Only training and validation images take part in the search; the test images judge the final model, once.

The same command gives the same result, however often it is interrupted and however many trials run at once: the
settings of trial n, and whether it is pruned, depend only on the seed and on trials up to n - `parallel`.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.public.datasets import NAMED
from hangtag.data.read import read
from hangtag.errors import DataError, HangtagError, ModelError, RunError, SaveError, UsageError
from hangtag.evaluation.run_folder import Run
from hangtag.evaluation.tuning_results import Trial, Trials, read_trials, write_trials
from hangtag.files import make_folder, user_path
from hangtag.model.calibration import log_softmax
from hangtag.training.arguments import seed_of
from hangtag.training.choose_recipe import AUTO
from hangtag.training.classifier import Classifier
from hangtag.training.cross_fit import choose_folds
from hangtag.training.engine.loop import Epoch
from hangtag.training.engine.recipes import Recipe, adapt_to_pixels, adapt_to_size, changed
from hangtag.training.run import Training, initial_config, open_run
from hangtag.training.sampler import check_sampler, propose
from hangtag.training.search_space import Space, default_space, own_settings, parse_space, size_of, space_from_python

__all__ = ["PARALLEL", "TRIALS", "Job", "Search", "calibrated_loss", "check_limits", "run_trial", "tune"]

TRIALS = 20
"""The default number of trials."""

PARALLEL = 4
"""The default of `Search.parallel`."""

_MOST_TRIALS, _MOST_PARALLEL = 10_000, 1000
_RUNGS = (1 / 9, 1 / 3)
"""The shares of a trial's epochs after which it is compared with others."""
_KEPT = 3  # one trial in three is continued
_LEAST_RIVALS = 3  # with fewer other losses at a rung, no trial is pruned
_HELD_OUT = 0.1  # for a recipe that holds out nothing
_CHANGES_FOLDS = ("patience", "fine_tune")  # these need held-out images

Report = Callable[[Epoch], None]


@dataclass(frozen=True)
class Job:
    """One trial to run.

    Attributes:
        classifier: unfitted, with the settings of the trial.
        settings: those that are searched.
        rivals: for each rung, the losses of the other trials that this one is compared with.
        folder: where it trains.
    """

    number: int
    classifier: Classifier
    settings: Mapping[str, Any]
    rivals: tuple[tuple[float, ...], ...]
    folder: Path


class Search:
    """A search and its run folder.

    Args:
        classifier: unfitted, with the recipe to search for and fixed settings.
        data, source, out: as for `Training.begin`; an unfinished search with exactly these settings is continued.
        search: the space as a dict (see `space_from_python`) or as texts (see `parse_space`); empty: the space that
            suits the recipe.
        trials: how many; None: 20, or with `minutes` as many as there is time for.
        minutes: how long to search, not counting the final training; None: until all trials are done.
        parallel: how many trials may be in progress at once. Another number can give another result.

    Raises:
        DataError, RunError, UsageError, MissingExtra: before anything is trained.
    """

    def __init__(
        self,
        classifier: Classifier,
        data: LabelledImages,
        source: dict[str, Any],
        out: Path | None,
        search: Mapping[str, Any] | Sequence[str] = (),
        trials: int | None = None,
        minutes: float | None = None,
        parallel: int = PARALLEL,
    ) -> None:
        check_limits(trials, minutes, parallel)
        check_sampler()
        recipe = classifier.chosen_recipe(data)
        self.searched = _without_test(data)
        named = space_from_python(recipe, search) if isinstance(search, Mapping) else parse_space(recipe, search)
        recipe, self.note = _with_judges(recipe, data, named)
        adapted = _adapted(recipe, self.searched, classifier)
        self.space: Space = named or default_space(adapted, len(self.searched.train))
        if not self.space:
            raise UsageError("there is nothing to search: all settings are fixed", "name one: --search NAME=VALUES")
        self.classifier, self.data, self.source = _with_recipe(classifier, recipe), data, source
        self.own = own_settings(adapted, self.space)
        count = TRIALS if trials is None and minutes is None else trials or _MOST_TRIALS
        self.count, self.minutes, self.parallel = int(min(count, size_of(self.space))), minutes, parallel
        self.seed = seed_of(classifier)
        config = initial_config(self.classifier, data, source)
        config["tuning"] = {
            "recipe": config["recipe"],
            "search": {name: each.to_json() for name, each in self.space.items()},
            "trials": self.count,
            "minutes": minutes,
            "parallel": parallel,
        }
        self.run, self.lock, self.resumed = open_run(config, out, f"{data.name}-{recipe.name}-tuned")
        self.results = read_trials(self.run.path) or Trials(
            {name: str(each) for name, each in self.space.items()},
            "cross-validation" if recipe.folds else "validation",
        )
        self._began = time.perf_counter() - self.results.seconds
        self._proposed: list[dict[str, Any]] = []

    @property
    def seconds(self) -> float:
        """How long the search has taken, over all processes that took part one after the other."""
        return time.perf_counter() - self._began

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time is over; False until one trial is completed."""
        return self.minutes is not None and self.seconds > 60 * self.minutes and self.results.best is not None

    @property
    def is_chosen(self) -> bool:
        """Whether the search is over and the final training has begun."""
        return self.results.chosen is not None

    def waiting(self, running: Sequence[int] = ()) -> Iterator[Job]:
        """The trials that can start now, in order. More may be able to start after another one has ended.

        Args:
            running: numbers of the trials in progress, which are left out.
        """
        done = {trial.number for trial in self.results.trials}
        for number in range(self.count):
            if not set(range(number - self.parallel + 1)) <= done or self.is_out_of_time:
                return
            if number not in done and number not in running:
                yield self._job(number)

    def _job(self, number: int) -> Job:
        while len(self._proposed) <= number:
            place = len(self._proposed)
            first = self.own if not place else None
            self._proposed.append(first or propose(self.space, self._known(place), self._proposed, self.seed))
        settings = self._proposed[number]
        rivals = tuple(
            tuple(trial.rungs[rung] for trial in self._known(number) if len(trial.rungs) > rung)
            for rung in range(len(_RUNGS))
        )
        recipe = changed(self.classifier.chosen_recipe(self.data), settings)
        return Job(number, _with_recipe(self.classifier, recipe), settings, rivals, self.folder(number))

    def _known(self, number: int) -> list[Trial]:
        """The trials whose results may influence this one."""
        return [trial for trial in self.results.trials if trial.number <= number - self.parallel]

    def folder(self, number: int) -> Path:
        """Where a trial trains."""
        return self.run.path / "trials" / str(number)

    def add(self, trial: Trial) -> None:
        """Record a finished trial, and remove its folder.

        Raises:
            RunError: every trial so far failed, and there were several.
        """
        self.results = replace(self.results.with_trial(trial), seconds=self.seconds)
        write_trials(self.run.path, self.results)
        _remove(self.folder(trial.number))
        failed = [each for each in self.results.trials if each.state == "failed"]
        if len(failed) == len(self.results) and len(failed) >= min(self.count, _LEAST_RIVALS):
            self.lock.close()
            raise RunError(
                f"{self.run.path}: every trial failed; the last one: {trial.reason}",
                "search smaller learning rates or batches, in another folder",
            )

    def trials_in_turn(
        self, stop: Callable[[], bool] = lambda: False, report: Callable[[int, Epoch], None] = lambda *_: None
    ) -> Iterator[Trial]:
        """Run one trial after the other until the search is over or stopped; yields each, recorded.

        Args:
            stop: called several times a second.
            report: called several times a second with the number of a trial and the state of its training.
        """
        while not stop() and (job := next(self.waiting(), None)) is not None:
            trial = run_trial(
                job, self.searched, self.source, lambda: stop() or self.is_out_of_time, partial(report, job.number)
            )
            if trial is not None:
                self.add(trial)
                yield trial

    def pause(self) -> None:
        """Record how long the search has taken, and release the folder, so that the same command can continue."""
        with suppress(SaveError):
            write_trials(self.run.path, replace(self.results, seconds=self.seconds))
        self.lock.close()

    def discard(self) -> None:
        """Remove the folder if no trial began."""
        if not len(self.results) and not (self.run.path / "trials").exists():
            self.run.discard()

    def refit(self) -> Training:
        """The training of the best setting, in the run folder: a new one, or one that was interrupted.

        Raises:
            RunError: no trial was completed.
        """
        if self.is_chosen:
            return Training._resume(self._chosen_classifier(), self.data, self.run, self.lock)
        best = self.results.best
        if best is None:
            raise RunError(f"{self.run.path}: no trial was completed", "search with more trials, in another folder")
        _remove(self.run.path / "trials")
        self.results = replace(self.results, chosen=best.number, seconds=self.seconds)
        write_trials(self.run.path, self.results)
        classifier = self._chosen_classifier()
        recipe = classifier.chosen_recipe(self.data).to_json()
        tuning = {**self.run.config()["tuning"], "chosen": best.number, "tried": len(self.results)}
        config = {**self.run.config(), "recipe": recipe, "tuning": tuning}
        training = Training(classifier, self.data, self.run, self.lock, config)
        training.record()
        return training

    def _chosen_classifier(self) -> Classifier:
        (chosen,) = (trial for trial in self.results.trials if trial.number == self.results.chosen)
        recipe = changed(self.classifier.chosen_recipe(self.data), chosen.settings)
        return _with_recipe(self.classifier, recipe)


def tune(
    data: Any,
    recipe: str | Recipe = AUTO,
    search: Mapping[str, Any] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    parallel: int = PARALLEL,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    progress: Callable[[Trial], None] = lambda _: None,
) -> Run:
    """Search for the settings of a recipe with the lowest validation loss, train with them, and evaluate once.

    Settings are proposed by a tree-structured Parzen estimator (Bergstra et al., 2011, as in Optuna), and bad ones are
    stopped early by successive halving (Li et al., 2020, "ASHA"). The test images take no part in the search. A search
    that was interrupted is continued by the same call.

    Args:
        data: a `LabelledImages`, or anything that `read` takes.
        recipe: as for `ImageClassifier`.
        search: what to search: {"learning_rate": (1e-4, 1e-1), "batch_size": [32, 64, 128]}, where a tuple is a range
            and a list holds values. None: the settings that suit the recipe.
        settings: fixed settings of the recipe.
        trials: number of settings to try; None: 20, or as many as there is time for.
        minutes: how long to search, not counting the final training.
        parallel: how many trials `hangtag tune` may run at once on a cluster. A trial uses only the results of trials
            at least this many before it, so the number also affects the result on one machine.
        seed: of the search and of all trainings.
        device: "auto", "cpu" or "cuda".
        out: the run folder; None: the next free name under runs/.
        progress: called with each finished trial.

    Returns:
        The run. `run.trials()` has all trials, `load(run)` opens its model, and `evaluate(run)` judges it.

    Raises:
        MissingExtra: Optuna is not installed (extra `tune`).
        DataError, UsageError: the data or an argument cannot be used.
        RunError: `out` holds another run, or no trial could be trained.
    """
    images = read(data)
    named = isinstance(data, str | os.PathLike)
    what = str(data) if str(data) in NAMED or not named else str(user_path(data).absolute())
    classifier = Classifier(recipe=recipe, settings=settings, seed=seed, device=device)
    source = {"what": what if named else None, "path": None}
    found = Search(
        classifier, images, source, None if out is None else user_path(out), search or {}, trials, minutes, parallel
    )
    for trial in () if found.is_chosen else found.trials_in_turn():
        progress(trial)
    training = found.refit()
    for _ in training.epochs():
        pass
    training.finish()
    return found.run


def check_limits(trials: int | None, minutes: float | None, parallel: int) -> None:
    """Raise UsageError for a limit that is out of range."""
    if trials is not None and not 1 <= trials <= _MOST_TRIALS:
        raise UsageError(f"trials must be from 1 to {_MOST_TRIALS:,}, got {trials:,}", "usual: 10 to 100")
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"minutes must be above 0, got {minutes:g}", "for example --minutes 30")
    if not 1 <= parallel <= _MOST_PARALLEL:
        raise UsageError(f"parallel must be from 1 to {_MOST_PARALLEL:,}, got {parallel:,}", "usual: 1 to 16")


def run_trial(
    job: Job, data: LabelledImages, source: dict[str, Any], stop: Callable[[], bool], report: Report = lambda _: None
) -> Trial | None:
    """Train one trial to its end, or until it is pruned; None if it was stopped and can be resumed.

    A trial that was interrupted continues from its checkpoint.

    Args:
        job: from `Search.waiting`.
        data: the images of the search, without a test part.
        stop: called several times a second; True ends the training.
        report: called with the state of the training several times a second.
    """
    began = time.perf_counter()

    def failed(error: HangtagError) -> Trial:
        return Trial(job.number, dict(job.settings), "failed", seconds=time.perf_counter() - began, reason=str(error))

    try:
        training = _begun(job, data, source)
    except (UsageError, DataError, ModelError) as error:
        return failed(error)
    history, pruned, planned = list(training.history), False, 0
    rungs: list[float] = list(training.config.get("rungs", []))
    try:
        for epoch in training.epochs(stop):
            report(epoch)
            planned = epoch.epochs
            if not epoch.finished or epoch.cut_short:
                continue
            history.append(epoch)
            for rung, share in enumerate(_RUNGS):
                if epoch.number == math.ceil(share * epoch.epochs) < epoch.epochs and epoch.val_loss is not None:
                    rungs[rung:] = [_loss_and_accuracy(training.classifier)[0]]
                    training.record(rungs=rungs)
                    pruned = pruned or _is_worse(rungs[-1], job.rivals[rung])
            if pruned:
                break
        if not pruned and not stop() and training.folds:
            training.cross_fit(stop)
        if stop() and (training.stopped or not training.can_finish) and not pruned:
            training.lock.close()
            return None
        loss, accuracy = _loss_and_accuracy(training.classifier)
    except KeyboardInterrupt:  # features were being computed
        training.lock.close()
        if not stop():
            raise
        return None
    except ModelError as error:
        training.lock.close()
        return failed(error)
    training.lock.close()
    return Trial(
        job.number, dict(job.settings), "pruned" if pruned else "completed", loss, accuracy, planned,
        tuple(epoch.val_loss for epoch in history if epoch.val_loss is not None), tuple(rungs),
        sum(epoch.seconds for epoch in training.history) + time.perf_counter() - began,
    )  # fmt: skip


def _begun(job: Job, data: LabelledImages, source: dict[str, Any]) -> Training:
    """The training of a trial, in its folder; a finished or damaged one there starts over."""
    make_folder(job.folder.parent)
    run = Run(job.folder)
    try:
        return Training.begin(job.classifier, data, source, job.folder)
    except RunError:
        if run.is_locked():
            raise
        _remove(job.folder)
        return Training.begin(job.classifier, data, source, job.folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what is left does no harm


def _loss_and_accuracy(classifier: Classifier) -> tuple[float, float]:
    """The cross-entropy of the held-out images after temperature scaling, and their accuracy."""
    logits, labels = classifier.validation_logits()
    return calibrated_loss(logits, labels), float((logits.argmax(axis=1) == labels).mean())


def calibrated_loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The least mean cross-entropy that one factor for all logits (N, K) can give (Guo et al., 2017).

    The model file scales its logits, too; without that, the loss would favour whatever makes a network less confident.
    One image is added that has every label with equal weight, so that a network without a mistake is not infinitely
    confident.
    """
    share, rows = 1 / (len(labels) + 1), np.arange(len(labels))

    def loss(power: float) -> float:
        logs = log_softmax(math.exp(power) * logits.astype(np.float64))
        return float((1 - share) * -logs[rows, labels].mean() - share * logs.mean())

    return float(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-4}).fun)


def _is_worse(loss: float, rivals: Sequence[float]) -> bool:
    """Whether successive halving ends a trial: its loss is not among the best third (Li et al., 2020, "ASHA")."""
    if len(rivals) < _LEAST_RIVALS:
        return False
    return loss > sorted([*rivals, loss])[max(0, (len(rivals) + 1) // _KEPT - 1)]


def _without_test(data: LabelledImages) -> LabelledImages:
    """The images that may take part in a search; no pixels are copied if the parts lie one after the other."""
    if "test" not in data.parts:
        return data
    if "validation" not in data.parts:
        return data.train
    train, validation = data.positions("train"), data.positions("validation")
    both = data.take(np.concatenate([train, validation]), f"{data.name} (train)")
    cut = len(train)
    return replace(both, parts={"train": slice(0, cut), "validation": slice(cut, len(both))})


def _with_judges(recipe: Recipe, data: LabelledImages, space: Space) -> tuple[Recipe, str]:
    """The recipe with a fixed number of folds or fraction held out, the same for each trial, and a note or ""."""
    needs_held_out = [name for name in _CHANGES_FOLDS if name in space]
    if needs_held_out and recipe.folds:
        raise UsageError(
            f"folds={recipe.folds} and a search for {needs_held_out[0]} contradict each other: with folds, no images "
            "are held out of the training",
            "give only one of them",
        )
    folds, note = (0, "") if needs_held_out else choose_folds(recipe, data)
    recipe = replace(recipe, folds=folds)
    if not folds and not recipe.validation and "validation" not in data.parts:
        recipe = replace(recipe, validation=_HELD_OUT)
        note = f"recipe '{recipe.name}' holds out no images; {_HELD_OUT:.0%} are held out for the search"
    return recipe, note


def _adapted(recipe: Recipe, data: LabelledImages, classifier: Classifier) -> Recipe:
    """The recipe as a training would adapt it, without what depends on pixels."""
    if recipe.backbone:
        return recipe
    images = round(len(data.train) * (1 - (0 if "validation" in data.parts else recipe.validation)))
    return adapt_to_pixels(adapt_to_size(recipe, images)[0], math.prod(data.spec.shape))[0]


def _with_recipe(classifier: Classifier, recipe: Recipe) -> Classifier:
    """An unfitted classifier with this recipe, which already contains all settings."""
    own = dict.fromkeys(("epochs", "batch_size", "learning_rate", "validation", "folds", "patience", "balance"))
    own |= {"settings": None, "recipe": recipe}
    network = None if isinstance(classifier.model, str) else classifier.model
    return Classifier(**{**classifier.arguments(), **own, "model": network})
