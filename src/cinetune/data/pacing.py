"""How often a server is asked: all workers take turns, and one refusal makes all of them wait."""

from __future__ import annotations

import logging
import random
import threading
import time
from datetime import datetime, timedelta

from cinetune.data.fetching import FetchResult
from cinetune.errors import InputError
from cinetune.params import DownloadParams

logger = logging.getLogger(__name__)

REFUSALS = ("rate_limited", "forbidden")
# How soon a waiting worker notices that the run has been stopped.
POLL_S = 0.5


class Pace:
    """The turns of all workers of one run.

    After a refusal nobody asks until the wait is over; then a single worker does, and its answer decides for all. A
    wait is what the server asks for, else `cooldown_s` (`backoff_s` after a 403), doubled for each further refusal in
    a row.
    """

    def __init__(self, params: DownloadParams, stopped: threading.Event) -> None:
        self._params, self._stopped = params, stopped
        self._changed = threading.Condition()
        self._next = 0.0
        self._refusals = 0
        self._waited_s = 0.0
        self._is_probing = False
        self._last = ""
        self.is_exhausted = False

    def wait_turn(self) -> bool:
        """Block until this worker may ask, which it must then `answer`; False where the run has ended meanwhile."""
        with self._changed:
            while not (self._stopped.is_set() or self.is_exhausted):
                now = time.monotonic()
                wait_s = POLL_S if self._is_probing else self._next - now
                if wait_s <= 0:
                    self._next = now + self._params.pause_s * random.uniform(0.5, 1.5)
                    self._is_probing = self._refusals > 0
                    return True
                self._changed.wait(min(wait_s, POLL_S))
            return False

    def answer(self, result: FetchResult) -> None:
        """What the server said to the worker whose turn it was."""
        with self._changed:
            # What was asked before the first refusal says nothing about its end.
            decides = self._is_probing or not self._refusals
            if decides and result.status in REFUSALS:
                self._refuse(result)
            elif decides:
                self._refusals, self._waited_s = 0, 0.0
            if decides:
                self._is_probing = False
            self._changed.notify_all()

    def check(self) -> None:
        """Raises InputError once the server has refused for too long."""
        if self.is_exhausted:
            raise InputError(
                f"the server refuses ({self._last}): run it again later, it resumes from here, or raise "
                "download.max_cooldown_s."
            )

    def _refuse(self, result: FetchResult) -> None:
        cooldown_s = self._params.cooldown_s if result.status == "rate_limited" else 0.0
        factor = 2.0**self._refusals
        wait_s = max(result.wait_s or cooldown_s * factor, self._params.backoff_s * factor)
        left_s = self._params.max_cooldown_s - self._waited_s
        self._refusals += 1
        self._last = told = result.reason.removesuffix(".")
        if left_s <= 0 or result.wait_s > left_s:
            self.is_exhausted = True
            return
        wait_s = min(wait_s, left_s)
        self._waited_s += wait_s
        self._next = time.monotonic() + wait_s
        until = datetime.now() + timedelta(seconds=wait_s)
        said = "download: refused (%s); all workers wait until %s, then one asks again."
        logger.warning(said, told, f"{until:%H:%M:%S}")
