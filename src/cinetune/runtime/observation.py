"""What became of a question, step by step: recorded where somebody wants to see it, and nothing elsewhere.

`recording` opens a record for this thread; `span` adds a step to it with its times. A step that another thread takes on
a question's behalf is given the record.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FETCHING, DECODING, READING, ANSWERING = "fetching", "decoding", "reading", "answering"


@dataclass(frozen=True)
class Span:
    """A step; times in nanoseconds since 1970."""

    name: str
    start_ns: int
    end_ns: int


@dataclass(eq=False)
class Record:
    """The steps of one request, in the order in which they ended."""

    spans: list[Span] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Observation:
    """A question that was answered; frames: uint8 [n, size, size, 3].

    about: what else is known of it, as its clip and film; answer: what the client got.
    """

    question: str
    choices: Sequence[str] | None
    subtitles: str
    frames: np.ndarray
    answer: Mapping[str, Any]
    probabilities: Sequence[float] | None
    spans: Sequence[Span] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


_CURRENT: ContextVar[Record | None] = ContextVar("record", default=None)


def current() -> Record | None:
    return _CURRENT.get()


@contextmanager
def recording() -> Iterator[Record]:
    """A record of what this thread does within the block."""
    record = Record()
    token = _CURRENT.set(record)
    try:
        yield record
    finally:
        _CURRENT.reset(token)


@contextmanager
def span(name: str, records: Iterable[Record | None] | None = None) -> Iterator[None]:
    """The block as a step of this thread's record, or of those that are given; also where it fails."""
    kept = [record for record in ([_CURRENT.get()] if records is None else records) if record is not None]
    start = time.time_ns()
    try:
        yield
    finally:
        for record in kept:
            record.spans.append(Span(name, start, time.time_ns()))
