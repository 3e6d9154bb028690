"""All questions of a split put to a server: several at once, within a rate, each saved as it is answered.

A question that has no reply after its last attempt is left for the next run; the others go on, until too many in a row
have none.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from cinetune.errors import InputError
from cinetune.inference.server.client import Client, Failure, Rejection
from cinetune.inference.server.endpoint import Endpoint
from cinetune.inference.server.reply import REJECTED, ServerReply
from cinetune.inference.server.requests import Job
from cinetune.params import EvaluateParams

# Before the first further attempt, give or take half; doubled before each one after that.
BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0
# Questions in a row without a reply.
STOP_AFTER = 10


class Pace:
    """Starts of requests, so many a minute at most (0 for any), and none while a busy server wants to be left alone."""

    def __init__(self, per_minute: float) -> None:
        self._gap_s = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        now = asyncio.get_running_loop().time()
        at = max(self._next, now)
        self._next = at + self._gap_s
        await asyncio.sleep(at - now)

    def hold(self, seconds: float) -> None:
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


class Judging:
    """One run over the questions that are open; `lost` counts those that stay so, by reason and key."""

    def __init__(
        self, endpoint: Endpoint, chosen: EvaluateParams, save: Callable[[Job, ServerReply], None], has_answers: bool
    ) -> None:
        self._endpoint, self._chosen, self._save = endpoint, chosen, save
        # Before the first answer a rejection is taken for one of our settings, not of the question.
        self._has_answers = has_answers
        self._in_a_row = 0
        self._last = ""
        self.lost: dict[tuple[str, str], str] = {}

    def run(self, jobs: Iterator[Job]) -> None:
        """Raises InputError where no further question would be answered."""
        asyncio.run(self._run(jobs, self._endpoint.key()))

    async def _run(self, jobs: Iterator[Job], key: str) -> None:
        chosen = self._chosen
        async with Client(self._endpoint, key, chosen.server_timeout_s, chosen.server_requests) as client:
            pace = Pace(chosen.server_rate)
            working = [asyncio.create_task(self._work(jobs, client, pace)) for _ in range(chosen.server_requests)]
            try:
                await asyncio.wait(working, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for task in working:
                    task.cancel()
                ended = await asyncio.gather(*working, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _work(self, jobs: Iterator[Job], client: Client, pace: Pace) -> None:
        for job in jobs:
            try:
                reply = await self._ask(job, client, pace)
            except Failure as failure:
                self._lose(job, failure.reason)
            else:
                self._in_a_row = 0
                self._has_answers = self._has_answers or reply.kind != REJECTED
                self._save(job, reply)

    async def _ask(self, job: Job, client: Client, pace: Pace) -> ServerReply:
        """Raises Failure where the last attempt failed."""
        failures: Counter[str] = Counter()
        for attempt in range(self._chosen.server_attempts):
            await pace.wait()
            try:
                return replace(await client.ask(job.body), failures=dict(failures))
            except Rejection as rejection:
                self._last = f"{rejection.status}: {rejection}"
                if not self._has_answers:
                    raise Failure(f"status {rejection.status}") from None
                return ServerReply(REJECTED, "", ended=self._last, failures=dict(failures))
            except Failure as failure:
                failures[failure.reason] += 1
                self._last = failure.reason
                if attempt + 1 == self._chosen.server_attempts:
                    raise
                await self._wait(failure, attempt, pace)
        raise AssertionError("server_attempts is above 0")

    async def _wait(self, failure: Failure, attempt: int, pace: Pace) -> None:
        backoff_s = min(BACKOFF_S * 2**attempt, MAX_BACKOFF_S) * random.uniform(0.5, 1.5)
        seconds = backoff_s if failure.wait_s is None else failure.wait_s
        if failure.is_busy:
            pace.hold(seconds)
        else:
            await asyncio.sleep(seconds)

    def _lose(self, job: Job, reason: str) -> None:
        self.lost[job.key] = reason
        self._in_a_row += 1
        if self._in_a_row >= STOP_AFTER:
            raise InputError(
                f"the server at {self._endpoint.url} answered none of the last {STOP_AFTER} questions (the last: "
                f"{self._last}): see that it runs and takes such requests, and run it again; it resumes from there."
            )
