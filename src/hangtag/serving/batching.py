"""Dynamic batching: waiting pictures of all requests are decoded and inferred together, off the event loop.

Answers are those of the library, bit for bit, whatever is in a batch with them.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import HangtagError
from hangtag.machine import processors
from hangtag.model.guarantees import AnswerPolicy
from hangtag.model.predictor import Answer
from hangtag.pictures import Images
from hangtag.serving.models import ServedModel
from hangtag.serving.refusals import Refusal
from hangtag.serving.settings import Settings

__all__ = ["Ask", "Batcher"]


@dataclass(frozen=True)
class Ask:
    """What a request wants to know about each of its pictures.

    Attributes:
        top: number of classes.
        policy: how cautious answers are.
        doctor: as `Predictor.doctor`.
        why: whether answers come with a heat map.
    """

    top: int = 3
    policy: AnswerPolicy = field(default_factory=AnswerPolicy)
    doctor: bool | None = None
    why: bool = False


class Batcher:
    """Answers requests, at most `Settings.max_queue` pictures at a time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.waiting = 0  # pictures that were admitted and have no answer yet
        self._threads = ThreadPoolExecutor(settings.threads or processors(), "hangtag")

    def admit(self, pictures: int) -> None:
        """Raise Refusal (503) if so many more pictures cannot wait."""
        if self.waiting + pictures > self.settings.max_queue:
            raise Refusal(503, "the server is overloaded", "try again later", {"Retry-After": "1"})

    async def answers(
        self, model: ServedModel, pictures: Sequence[bytes], ask: Ask, deadline: float
    ) -> list[Answer | HangtagError]:
        """For each encoded picture, its answer or why there is none.

        Args:
            deadline: in seconds of `time.monotonic()`.

        Raises:
            Refusal: overloaded (503), or too late (504).
        """

        def work() -> list[Answer | HangtagError]:
            if time.monotonic() > deadline:
                raise Refusal(504, "the deadline has passed", "allow more time")
            predictor = model.predictor.with_policy(ask.policy).with_doctor(ask.doctor)
            found: list[Answer | HangtagError] = []
            for picture in pictures:
                try:
                    found.append(predictor(picture, ask.top))
                except HangtagError as error:
                    found.append(error)
            return found

        self.admit(len(pictures))
        self.waiting += len(pictures)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self.waiting -= len(pictures)

    async def outputs(
        self, model: ServedModel, images: Images, names: Sequence[str], deadline: float
    ) -> dict[str, NDArray[np.float32]]:
        """Outputs of the model by name, for checked uint8 images (N, H, W[, 3]); errors as of `answers`."""

        def work() -> dict[str, NDArray[np.float32]]:
            if time.monotonic() > deadline:
                raise Refusal(504, "the deadline has passed", "allow more time")
            return model.predictor.outputs(images, *names)

        self.admit(len(images))
        self.waiting += len(images)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self.waiting -= len(images)

    def close(self) -> None:
        self._threads.shutdown(wait=True)
