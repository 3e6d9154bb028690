"""When the next request may be sent."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest

from cinetune.inference.server import judging
from cinetune.inference.server.client import MAX_WAIT_S, retry_after
from cinetune.inference.server.judging import Pace

pytestmark = pytest.mark.evaluation


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, while the clock stands still."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    clock = SimpleNamespace(time=lambda: 50.0)
    monkeypatch.setattr(judging, "asyncio", SimpleNamespace(sleep=sleep, get_running_loop=lambda: clock))
    return pauses


def test_requests_start_no_faster_than_the_rate(slept: list[float]) -> None:
    async def four() -> None:
        pace = Pace(30)
        for _ in range(4):
            await pace.wait()

    asyncio.run(four())
    assert slept == [0, 2, 4, 6]


def test_none_starts_while_the_server_wants_to_be_left_alone(slept: list[float]) -> None:
    async def after_a_hold() -> None:
        pace = Pace(0)
        await pace.wait()
        pace.hold(7)
        pace.hold(3)
        await pace.wait()

    asyncio.run(after_a_hold())
    assert slept == [0, 7]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3), ("0.5", 0.5), ("0", 0), ("-5", 0), ("1e9", MAX_WAIT_S), ("inf", MAX_WAIT_S), ("nan", None),
        ("", None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 21 Oct 2015 07:28:00", None),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_a_date_ahead_is_waited_for() -> None:
    found = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True))
    assert found is not None and math.isclose(found, 100, abs_tol=30)
