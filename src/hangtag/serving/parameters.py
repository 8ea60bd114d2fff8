"""The parameters of a request of the simple API: read, checked, and described for OpenAPI from one table."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from hangtag.errors import UnknownName, UsageError
from hangtag.model.conformal import METHODS
from hangtag.model.guarantees import COVERAGE, OOD_FALSE_POSITIVE_RATE, TARGET_ACCURACIES, AnswerPolicy
from hangtag.serving.compute import Ask
from hangtag.serving.refusals import Refusal
from hangtag.words import visible

__all__ = ["MODEL", "PREDICT", "TIMEOUT_HEADER", "Wish", "described", "timeout_in", "wish_of"]

TIMEOUT_HEADER = "x-request-timeout"

_NO = {"0": False, "false": False, "False": False, "no": False}
_YES = {"1": True, "true": True, "True": True, "yes": True}
_MOST_FIELDS = 100
_MOST_SHOWN = 60  # characters of a client's words in an error
_CACHED = 200  # bytes of a query that is remembered
_WHOLE = re.compile(r"[+-]?[0-9]{1,9}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Wish:
    """What a client wants.

    Attributes:
        model: the name of a model; None: the default one.
        why, doctor: whether each answer comes with a heat map, and each repaired picture is shown before and after.
        timeout: seconds; infinite: as long as the server allows.
    """

    ask: Ask
    model: str | None = None
    why: bool = False
    doctor: bool = False
    timeout: float = math.inf


@dataclass(frozen=True)
class _Parameter:
    read: Callable[[object], Any]
    schema: dict[str, Any]
    description: str


def _shown(value: object) -> str:
    text = visible(str(value))
    return f"'{text[:_MOST_SHOWN]}...'" if len(text) > _MOST_SHOWN else f"'{text}'"


def _truth(value: object) -> bool:
    found = value if isinstance(value, bool) else {**_YES, **_NO}.get(str(value))
    if found is None:
        raise UsageError(f"must be 1 or 0, got {_shown(value)}", "true, false, yes and no are understood, too")
    return found


def _whole(value: object) -> int:
    if isinstance(value, bool) or not _WHOLE.fullmatch(str(value)):
        raise UsageError(f"must be a whole number, got {_shown(value)}", "for example 3")
    return int(str(value))


def _count(value: object) -> int:
    if (number := _whole(value)) < 1:
        raise UsageError(f"must be at least 1, got {number}", "it is the number of classes to show")
    return number


def _number(value: object) -> float:
    if isinstance(value, bool) or not _NUMBER.fullmatch(str(value)):
        raise UsageError(f"must be a number, got {_shown(value)}", "for example 0.5")
    return float(str(value))


def _seconds(value: object) -> float:
    if not 0 < (seconds := _number(value)) < float("inf"):
        raise UsageError(f"must be above 0, got {seconds:g}", "it is a number of seconds")
    return seconds


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"must be text, got {_shown(value)}", "put it in quotes")
    return value


_TRUTH = {"type": "string", "enum": [*_YES, *_NO], "default": "0"}
_ABOVE = {"type": "number", "exclusiveMinimum": True}  # as OpenAPI 3.0 writes it
_SHARE = {**_ABOVE, "minimum": 0, "maximum": 1, "exclusiveMaximum": True}
_MODEL = _Parameter(_text, {"type": "string"}, "The model's name. Without it, the first model answers.")

MODEL = {"model": _MODEL}
"""The one parameter of requests about a model."""

PREDICT = {
    **MODEL,
    "top": _Parameter(_count, {"type": "integer", "minimum": 1, "maximum": 999_999_999, "default": 3},
                      "How many classes to show."),
    "why": _Parameter(_truth, _TRUTH, "Also show where in the picture the evidence for the answer is."),
    "doctor": _Parameter(_truth, _TRUTH, "Also show each repaired picture before and after repairs."),
    "as_is": _Parameter(_truth, _TRUTH, "Do not repair pictures unlike the training images."),
    "coverage": _Parameter(_number, {**_SHARE, "default": COVERAGE},
                           "Target share of images whose prediction set contains the true label."),
    "target_accuracy": _Parameter(_number, {"type": "number", "enum": list(TARGET_ACCURACIES)},
                                  "Target accuracy of sure answers. Not together with cost."),
    "cost": _Parameter(_number, {**_ABOVE, "minimum": 1},
                       "Cost of a wrong answer relative to abstaining. Not together with target_accuracy."),
    "set_method": _Parameter(_text, {"type": "string", "enum": list(METHODS), "default": "threshold"},
                             "How prediction sets are made."),
    "ood_false_positive_rate": _Parameter(_number, {**_SHARE, "default": OOD_FALSE_POSITIVE_RATE},
                                          "Share of familiar images that may be called unfamiliar."),
    "timeout": _Parameter(_seconds, {**_ABOVE, "minimum": 0},
                          "Seconds after which no answer is wanted, at most those that the server allows."),
}  # fmt: skip
"""The parameters of `POST /predict`, in the query, as fields of a form or as keys of a JSON object."""


def described(parameters: dict[str, _Parameter]) -> list[dict[str, Any]]:
    """The parameters of a query for OpenAPI."""
    return [
        {"name": name, "in": "query", "required": False, "schema": each.schema, "description": each.description}
        for name, each in parameters.items()
    ]


def wish_of(query: bytes, fields: Iterable[tuple[str, object]] = (), known: dict[str, _Parameter] = PREDICT) -> Wish:
    """What a query and the fields of a body want; raises Refusal (422)."""
    try:
        if not fields and known is PREDICT and len(query) <= _CACHED:
            return _remembered(query)
        return _read(query, fields, known)
    except UsageError as error:
        raise Refusal(422, error.message, error.hint) from None


def timeout_in(headers: Mapping[str, str]) -> float:
    """The seconds that a client allows in the header `TIMEOUT_HEADER`, or infinity; raises Refusal (400)."""
    if (header := headers.get(TIMEOUT_HEADER)) is None:
        return math.inf
    try:
        return _seconds(header)
    except UsageError as error:
        raise Refusal(400, f"{TIMEOUT_HEADER.title()} {error.message}", error.hint) from None


def _read(query: bytes, fields: Iterable[tuple[str, object]], known: dict[str, _Parameter]) -> Wish:
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise UsageError("the query has too many parameters", f"at most {_MOST_FIELDS} are read") from None
    values: dict[str, Any] = {}
    for name, value in [*pairs, *fields]:
        if name not in known:
            raise UnknownName.among("parameter", visible(name[:_MOST_SHOWN]), known)
        if name in values:
            raise UsageError(f"{name} is given twice", "give it once")
        try:
            values[name] = known[name].read(value)
        except UsageError as error:
            raise UsageError(f"{name} {error.message}", error.hint) from None
    return _wish(**values)


@lru_cache(256)
def _remembered(query: bytes) -> Wish:
    return _read(query, (), PREDICT)


def _wish(
    model: str | None = None, top: int = 3, why: bool = False, doctor: bool = False, as_is: bool = False,
    set_method: str = "threshold", timeout: float = math.inf, **policy: float,
) -> Wish:  # fmt: skip
    if doctor and as_is:
        raise UsageError("doctor and as_is contradict each other", "give only one of them")
    ask = Ask(top, AnswerPolicy(method=set_method, **policy), False if as_is else None, why or doctor)
    return Wish(ask, model, why, doctor, timeout)
