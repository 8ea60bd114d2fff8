"""Hostile HTTP: each case is refused within a second where it can be, and the server is well afterwards."""

import http.client
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from hostile import CASES, CLOSED, TOKEN, Case, Outcome, attack

from .conftest import Running

_LIMITS = {"client_timeout": 0.4, "timeout": 2.0, "keep_alive": 0.8}


@pytest.fixture(scope="module")
def servers(start_server: Callable[..., AbstractContextManager[Running]]) -> Iterator[dict[bool, Running]]:
    with start_server(**_LIMITS) as free, start_server(**_LIMITS, token=TOKEN) as with_token:
        yield {False: free, True: with_token}


@pytest.fixture(scope="module")
def slow_outcomes(servers: dict[bool, Running]) -> dict[str, Outcome]:
    """All cases that wait for the server's time limits, at the same time."""
    slow = [case for case in CASES if case.slow]
    with ThreadPoolExecutor(len(slow)) as threads:
        outcomes = threads.map(lambda case: attack(servers[case.needs_token].port, case), slow)
        return {case.name: outcome for case, outcome in zip(slow, outcomes, strict=True)}


def is_well(port: int, picture: bytes) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("POST", "/predict", picture, {"Authorization": f"Bearer {TOKEN}"})
    status = connection.getresponse().status
    connection.close()
    return status == 200


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile(case: Case, servers: dict[bool, Running], slow_outcomes: dict[str, Outcome], toy_png: bytes) -> None:
    port = servers[case.needs_token].port

    outcome = slow_outcomes.get(case.name) or attack(port, case)

    first = outcome.statuses[0] if outcome.statuses else CLOSED
    assert outcome.statuses or outcome.is_closed, "neither answered nor closed"
    assert first in case.statuses, outcome
    assert len(outcome.statuses) <= case.answers
    assert all(status != 200 for status in outcome.statuses[1:])
    assert outcome.seconds < 4  # on a busy machine; scripts/soak_serving.py measures in quiet
    assert is_well(port, toy_png)
