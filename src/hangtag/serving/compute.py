"""What a batch computes: encoded pictures -> answers, images -> outputs; here, or elsewhere by an `Engine`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from numpy.typing import NDArray

from hangtag.errors import HangtagError, logger
from hangtag.machine import processors
from hangtag.model.guarantees import AnswerPolicy
from hangtag.model.predictor import Answer, Predictor, Prepared
from hangtag.pictures import Images
from hangtag.serving.decoding import decode
from hangtag.serving.refusals import Refusal
from hangtag.serving.settings import Settings

if TYPE_CHECKING:
    from hangtag.serving.models import ServedModel

__all__ = ["Ask", "Engine", "Here", "Piece", "Work", "answer_all", "failure"]

_BYTES_AT_ONCE = 16_000_000  # decoded pictures that a thread holds


@dataclass(frozen=True)
class Ask:
    """What a request asks about each of its pictures.

    Attributes:
        top: number of classes.
        policy: how cautious answers are.
        doctor: as `Predictor.doctor`.
        why: whether answers come with `picture` and `seen`, from which a heat map is made.
    """

    top: int = 3
    policy: AnswerPolicy = field(default_factory=AnswerPolicy)
    doctor: bool | None = None
    why: bool = False


Piece = tuple[Ask, Sequence[bytes]]
"""Encoded pictures of one request."""


class Work(NamedTuple):
    """What became of a batch of pictures.

    Attributes:
        results: for each piece, for each picture, its answer or why there is none; None for one of a few pictures that
            the doctor has to repair, for which the others should not wait: it has to be asked for alone.
        decoded: seconds that decoding took, for each picture.
        inferred: pictures and seconds of each call of the model.
    """

    results: list[list[Answer | HangtagError | None]]
    decoded: list[float]
    inferred: list[tuple[int, float]]


class Engine(Protocol):
    """Computes the batches of a `Batcher`, which calls it on several threads."""

    @property
    def threads(self) -> int:
        """The most batches that are computed at the same time, at least 1; may change."""

    @property
    def problem(self) -> str | None:
        """Why nothing can be computed now; None if all is well."""

    def answers(self, model: "ServedModel", pieces: Sequence[Piece], seconds: float) -> Work:
        """The answers to a batch of pictures; clients wait for them at most this many `seconds` longer."""

    def outputs(
        self, model: "ServedModel", images: Images, names: Sequence[str], seconds: float
    ) -> dict[str, NDArray[Any]]:
        """Outputs of the model by name, for checked images (N, H, W[, 3]); raises HangtagError."""


class Here:
    """An `Engine` that computes in the thread that calls it."""

    problem: str | None = None

    def __init__(self, settings: Settings) -> None:
        self.threads, self.most_pixels = settings.threads or processors(), settings.max_pixels

    def answers(self, model: "ServedModel", pieces: Sequence[Piece], seconds: float) -> Work:
        return answer_all(model.predictor, pieces, self.most_pixels, postpones=True)

    def outputs(
        self, model: "ServedModel", images: Images, names: Sequence[str], seconds: float
    ) -> dict[str, NDArray[Any]]:
        return model.predictor.outputs(images, *names)


def answer_all(predictor: Predictor, pieces: Sequence[Piece], most_pixels: int, postpones: bool = False) -> Work:
    """Decode and answer pictures together; a picture that fails does not affect the others.

    Args:
        postpones: whether results may be None, see `Work`; never of a picture that is alone.
    """
    prepare = predictor.with_decoder(partial(decode, most=most_pixels)).prepare
    work = Work([[failure()] * len(pictures) for _, pictures in pieces], [], [])
    prepared: list[Prepared] = []
    places: list[tuple[int, int]] = []  # piece and picture of each of `prepared`
    size = 0

    def flush() -> None:
        nonlocal size
        if not prepared:
            return
        clock = time.perf_counter()
        for (piece, place), answer in zip(places, _together(predictor, prepared, postpones), strict=True):
            work.results[piece][place] = answer
        work.inferred.append((len(prepared), time.perf_counter() - clock))
        prepared.clear()
        places.clear()
        size = 0

    for piece, (ask, pictures) in enumerate(pieces):
        for place, picture in enumerate(pictures):
            clock = time.perf_counter()
            try:
                prepared.append(each := prepare(picture, ask.top, ask.policy, ask.doctor, ask.why))
            except HangtagError as error:
                work.results[piece][place] = error
                continue
            except Exception:
                logger.exception("a picture could not be decoded")
                continue
            finally:
                work.decoded.append(time.perf_counter() - clock)
            places.append((piece, place))
            size += each.pixels.nbytes
            if size >= _BYTES_AT_ONCE:
                flush()
    flush()
    return work


def _together(predictor: Predictor, prepared: list[Prepared], postpones: bool) -> list[Answer | HangtagError | None]:
    """Answers, or errors; a picture on which the graph fails does not affect the others."""
    try:
        return [*(predictor.postponing_repairs if postpones and len(prepared) > 1 else predictor.together)(prepared)]
    except Exception as error:
        if len(prepared) > 1:
            return [_together(predictor, [each], postpones)[0] for each in prepared]
        if isinstance(error, HangtagError):
            return [error]
        logger.exception("a picture could not be answered")
        return [failure()]


def failure() -> Refusal:
    """The answer (status 500) if the server itself fails."""
    return Refusal(
        500, "the server failed to answer", "this is a bug or a broken model; the log of the server says more"
    )
