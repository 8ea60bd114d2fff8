"""Fixtures of the tests of decoding."""

from collections.abc import Iterator

import pytest

from hangtag.data.store import spares


@pytest.fixture
def only_own_processes() -> Iterator[None]:
    """No decoding process is left from another test, nor for another one."""
    spares.end()
    yield
    spares.end()
