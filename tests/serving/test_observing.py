"""A share of a server's questions is shown to whoever observes: what was seen, said, and how long each step took."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from cinetune.runtime import observation
from cinetune.runtime.observation import Observation
from cinetune.serving.server.deadline import Deadline

pytestmark = pytest.mark.serving

CHOICES = ["red", "blue", "green", "grey", "black"]


@pytest.fixture
def service(served: Any) -> Iterator[Any]:
    service = served.unwrap_python_model().service
    limits = service.limits
    yield service
    service.observe, service.limits = None, limits


def ask(service: Any, share: float, *rows: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Observation]]:
    seen: list[Observation] = []
    service.observe = seen.append
    service.limits = dataclasses.replace(service.limits, trace_share=share)
    return service.answer(rows, service.defaults, Deadline(None)), seen


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {"video": f"clip:clip{number}", "question": "Which?", "choices": CHOICES, "subtitles": "Hm."} | changes


def test_what_was_seen_is_what_was_answered(service: Any) -> None:
    answers, seen = ask(service, 1.0, row(0), row(1, choices=None), row(1, video="clip:nowhere"))
    assert [answer["error"] is None for answer in answers] == [True, True, False]
    assert [dict(found.answer) for found in seen] == answers[:2]
    assert seen[0].choices == tuple(CHOICES) and abs(sum(seen[0].probabilities or ()) - 1) < 1e-5
    assert seen[1].choices is None and seen[1].probabilities is None
    assert all(len(found.frames) == service.frames.num_frames and found.subtitles == "Hm." for found in seen)


def test_each_step_has_its_times(service: Any) -> None:
    # No other test asks for so many frames of it, so it is in no cache.
    options = dataclasses.replace(service.defaults, num_frames=5)
    seen: list[Observation] = []
    service.observe, service.limits = seen.append, dataclasses.replace(service.limits, trace_share=1.0)
    service.answer([row(0)], options, Deadline(None))
    spans = seen[0].spans
    assert [span.name for span in spans] == [
        observation.FETCHING, observation.DECODING, observation.READING, observation.ANSWERING,
    ]  # fmt: skip
    assert all(before.end_ns <= after.start_ns for before, after in itertools.pairwise(spans))
    assert all(span.start_ns < span.end_ns for span in spans)


def test_nobody_sees_more_than_the_share(service: Any) -> None:
    assert ask(service, 0.0, row(0), row(1))[1] == []
    assert service.defaults and observation.current() is None
    many = ask(service, 0.5, *[row(0)] * 60)[1]
    assert 10 < len(many) < 50
