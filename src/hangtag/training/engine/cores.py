"""How many cores a training uses: all it may, or fewer while other programs keep them busy.

The threads of a training step wait for each other many times. Beside a busy program, one of them often waits for a core
and all others wait for it, so two threads can be several times slower than one. docs/log.md has measurements.
"""

import time
from collections.abc import Callable

from hangtag.machine import seconds_waiting_for_a_core

__all__ = ["CoreChoice"]

_WINDOW = 0.3  # seconds of steps in one measurement
_BUSY = 0.1  # share of the time that our threads waited for a core; under 0.02 on a quiet machine
_GAIN = 0.9  # another number of cores must take at most this share of the time per step
_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds between two trials; doubles while trials change nothing
_COST = 0.05  # share of the time that trials of a slower number of cores may take


class CoreChoice:
    """Measures steps and chooses the number of cores; it changes nothing on a machine that is not busy.

    While the threads get their cores at once, all are used. If they wait, the next steps are taken on half of the
    cores, and the faster number is kept. On fewer cores, twice as many are tried now and then.

    Attributes:
        count: the number of cores to use for the next steps.
    """

    def __init__(
        self,
        most: int,
        count: int | None = None,
        waiting: Callable[[], float] = seconds_waiting_for_a_core,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.most, self.count = most, min(count or most, most)
        self._waiting, self._clock = waiting, clock
        self._pause, self._next_trial = _PAUSE, 0.0
        self._before: tuple[int, float] | None = None
        """In a trial: the number of cores before it, and seconds per step on them."""
        self._per_step: float | None = None  # None until the first step is taken, which also prepares the others
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    @property
    def steps_to_measure(self) -> int:
        """How many steps to take before the next call of `record`."""
        return max(1, round(_WINDOW / self._per_step)) if self._per_step else 1

    def record(self, steps: int, seconds: float) -> None:
        """Tell how long these steps took on `count` cores."""
        first = self._per_step is None
        self._per_step = seconds / steps
        if self.most == 1:
            return
        self._steps, self._seconds = self._steps + steps, self._seconds + seconds
        if self._seconds >= _WINDOW and not first:
            if self._before is not None:
                self._end_trial(self._seconds / self._steps)
            elif self._clock() >= self._next_trial:
                self._begin_trial(self._seconds / self._steps)
        if self._seconds >= _WINDOW or first:
            self._steps, self._seconds, self._waited = 0, 0.0, self._waiting()

    def _begin_trial(self, per_step: float) -> None:
        busy = self._waiting() - self._waited > _BUSY * self._seconds
        fewer = busy and self.count > 1
        other = self.count // 2 if fewer else min(self.most, 2 * self.count)
        if other != self.count:
            self._before, self.count = (self.count, per_step), other

    def _end_trial(self, per_step: float) -> None:
        assert self._before is not None
        count, per_step_before = self._before
        changed = per_step < _GAIN * per_step_before
        if not changed:
            self.count = count
        self._before, self._pause = None, _PAUSE if changed else min(2 * self._pause, _LONGEST_PAUSE)
        slower = max(per_step, per_step_before) * max(1, round(_WINDOW / min(per_step, per_step_before)))
        self._next_trial = self._clock() + max(self._pause, slower / _COST)
