"""Proposes the settings of the next trial: Optuna's TPE sampler, told about earlier trials by replaying them.

Only the trials themselves are stored, and each proposal has a new sampler, so that it depends only on the seed, the
trial's number and the earlier trials that it is given.
"""

import importlib.util
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hangtag.errors import MissingExtra
from hangtag.evaluation.tuning_results import Trial
from hangtag.training.engine.batches import mixed_seed
from hangtag.training.search_space import Choice, Range, Space, size_of

__all__ = ["check_sampler", "propose"]

_DIGITS = 3  # of a proposed fraction, so that it can be read and typed
_ATTEMPTS = 10  # to propose something that was not proposed before
_FEW = 10_000  # combinations that are listed to find one that is left


def check_sampler() -> None:
    """Raise MissingExtra unless Optuna is installed."""
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtra.named("tune", "optuna")


def propose(space: Space, known: Sequence[Trial], proposed: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Settings for the next trial that no other trial has; the space must have some left.

    The tree-structured Parzen estimator (Bergstra et al., 2011) draws the first ten trials at random. Trials in
    progress count as bad ones, so that the next trials go elsewhere.

    Args:
        known: trials whose results may be used.
        proposed: the settings of all trials before this one.
        seed: of the search.
    """
    settings: dict[str, Any] = {}
    for attempt in range(_ATTEMPTS):
        settings = _ask(space, known, proposed, mixed_seed(seed, len(proposed), attempt))
        if settings not in proposed:
            return settings
    if size_of(space) > _FEW:
        return settings
    values = [
        each.values if isinstance(each, Choice) else range(int(each.low), int(each.high) + 1) for each in space.values()
    ]
    left = [each for row in itertools.product(*values) if (each := dict(zip(space, row, strict=True))) not in proposed]
    return left[mixed_seed(seed, len(proposed)) % len(left)]


def _ask(space: Space, known: Sequence[Trial], proposed: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(each) for name, each in space.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on experimental options, and on values from earlier versions
        sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True)
        study = optuna.create_study(sampler=sampler)
        by_number = {trial.number: trial for trial in known}
        for number, settings in enumerate(proposed):
            trial = by_number.get(number)
            facts: dict[str, Any] = {"state": TrialState.RUNNING}
            if trial is not None and trial.state == "completed":
                facts = {"value": trial.loss}
            elif trial is not None:
                facts = {"state": TrialState.PRUNED, "intermediate_values": dict(enumerate(trial.rungs))}
            study.add_trial(create_trial(params=dict(settings), distributions=distributions, **facts))
        drawn = study.ask(distributions).params
    return {name: _rounded(space[name], drawn[name]) for name in space}


def _distribution(each: Range | Choice) -> Any:
    import optuna.distributions as optuna

    if isinstance(each, Choice):
        return optuna.CategoricalDistribution(each.values)
    if each.is_whole:
        return optuna.IntDistribution(int(each.low), int(each.high), log=each.log)
    return optuna.FloatDistribution(each.low, each.high, log=each.log)


def _rounded(each: Range | Choice, value: Any) -> Any:
    """A fraction with few digits, but within its range."""
    if not isinstance(each, Range) or each.is_whole or not math.isfinite(value):
        return value
    return float(np.clip(float(f"{value:.{_DIGITS}g}"), each.low, each.high))
