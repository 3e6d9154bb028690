"""Until when a request's answer is wanted: its timeout, or the moment that its client disconnects."""

from __future__ import annotations

import threading
import time


class Deadline:
    """Shared by the thread that waits for an answer and the one that computes it."""

    def __init__(self, timeout_s: float | None) -> None:
        self._at = None if timeout_s is None else time.monotonic() + timeout_s
        self._is_cancelled = threading.Event()

    def cancel(self) -> None:
        self._is_cancelled.set()

    def is_open(self) -> bool:
        return not self._is_cancelled.is_set() and (self._at is None or time.monotonic() < self._at)

    def seconds_left(self) -> float | None:
        """None without a timeout."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def check(self) -> None:
        """Raises TimeoutError once it has passed."""
        if not self.is_open():
            raise TimeoutError("the time for this request is over")
