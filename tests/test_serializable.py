"""Saved results are read back with every field checked; an error names the file and the field."""

from dataclasses import dataclass
from typing import Any

import pytest

from hangtag.errors import RunError
from hangtag.serializable import Serializable


@dataclass(frozen=True)
class Inner:
    shares: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Outer(Serializable):
    images: int
    inner: Inner | None = None

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images must be at least 1, got {self.images}")


def test_unknown_keys_are_ignored_and_missing_ones_take_their_default() -> None:
    assert Outer.from_json({"images": 3, "more": [1]}) == Outer(3)
    assert Outer.from_json(Outer(3, Inner((0.5, None))).to_json()) == Outer(3, Inner((0.5, None)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "metrics.json is invalid: expected `object`, got `array`"),
        ({}, "metrics.json is invalid: object missing required field `images`"),
        ({"images": True}, "metrics.json is invalid: expected `int`, got `bool` (field `images`)"),
        ({"images": 0}, "metrics.json is invalid: images must be at least 1, got 0"),
        (
            {"images": 3, "inner": {"shares": [0.5, "1"]}},
            "metrics.json is invalid: expected `float | null`, got `str` (field `inner.shares[1]`)",
        ),
    ],
)
def test_an_error_names_the_file_and_the_field(value: Any, message: str) -> None:
    with pytest.raises(RunError) as caught:
        Outer.from_json(value, "metrics.json")

    assert (caught.value.message, bool(caught.value.hint)) == (message, True)
