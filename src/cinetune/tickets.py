"""A request's claim on the model: it ends with its deadline, or when its client has gone."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar


class Ticket:
    """Shared by the thread that waits for an answer and the one that makes it."""

    def __init__(self, timeout_s: float | None) -> None:
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._is_cancelled = threading.Event()

    def cancel(self) -> None:
        self._is_cancelled.set()

    def is_open(self) -> bool:
        return not self._is_cancelled.is_set() and (self._deadline is None or time.monotonic() < self._deadline)

    def seconds_left(self) -> float | None:
        """None where there is no deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raises TimeoutError once nobody waits any more."""
        if not self.is_open():
            raise TimeoutError("the time for this request is over")


# Set by the app around MLflow's server, which has no way of its own to tell the model whose request it is.
CURRENT: ContextVar[Ticket | None] = ContextVar("ticket", default=None)
