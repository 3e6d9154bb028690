"""Dynamic batching on the one thread that owns the model: queued questions on the same clip are answered together.

A clip's prefix is computed once for all of them and its keys and values are cached, within a bound, for later ones.
A question whose deadline has passed is cancelled at once, within a pack as well as before it.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from cinetune.errors import InputError
from cinetune.inference import scoring
from cinetune.inference.scoring import QuestionPrompt, Reading, Reply
from cinetune.model.encoder import Encoder
from cinetune.runtime import observation
from cinetune.runtime.observation import Record
from cinetune.serving.server.deadline import Deadline

# Attention takes memory by the square of a pack's length, and questions are untrusted.
MAX_QUESTION_TOKENS, MAX_PACK_TOKENS = 1024, 4096


class BusyError(Exception):
    """The queue is full."""


@dataclass(frozen=True, eq=False)
class Clip:
    """`digest` names the video's content and the number of frames; frames: uint8 [n, size, size, 3]."""

    digest: str
    frames: np.ndarray


@dataclass(frozen=True)
class Query:
    """A question and its budget of tokens; 0 where the options' probabilities are enough."""

    question: QuestionPrompt
    max_new_tokens: int


@dataclass(frozen=True, eq=False)
class Job:
    """Questions of one request on one clip, at most a pack of them."""

    clip: Clip
    subtitles: str
    queries: Sequence[Query]
    deadline: Deadline
    record: Record | None = field(default_factory=observation.current)
    done: Future[list[Reply | InputError]] = field(default_factory=Future)

    @cached_property
    def key(self) -> tuple[str, str]:
        return self.clip.digest, hashlib.sha256(self.subtitles.encode("utf-8", "replace")).hexdigest()


class Engine:
    """Use `ask` from any thread; `model` must not be used by anybody else."""

    def __init__(
        self,
        model: torch.nn.Module,
        encoder: Encoder,
        num_frames: int,
        questions_per_pack: int,
        max_waiting: int,
        cached_bytes: int,
    ) -> None:
        self._model, self._encoder = model, encoder
        self._tokens_per_frame = encoder.num_video_tokens // num_frames
        self._questions_per_pack, self.max_waiting = questions_per_pack, max_waiting
        self._readings = ReadingCache(cached_bytes)
        self._lock = threading.Lock()
        self._queue: list[Job] = []
        self._requests_in_flight = 0
        self._last: Deadline | None = None
        self._is_closed = False
        # Neither the model nor a fast tokenizer may be used by two threads at once.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.counts: Counter[str] = Counter()

    def ask(
        self, groups: Sequence[tuple[Clip, str, Sequence[Query]]], deadline: Deadline
    ) -> list[list[Reply | InputError]]:
        """Answers to the questions of each group (a clip, its subtitles, questions); an error for one too long.

        Raises BusyError when the queue is full, and TimeoutError once the deadline has passed.
        """
        size = self._questions_per_pack
        jobs = [
            [Job(clip, subtitles, queries[at : at + size], deadline) for at in range(0, len(queries), size)]
            for clip, subtitles, queries in groups
        ]
        queued = list(itertools.chain.from_iterable(jobs))
        with self._lock:
            if self._is_closed or self._requests_in_flight >= self.max_waiting:
                raise BusyError
            self._requests_in_flight += 1
            self._queue += queued
            for _ in queued:
                self._worker.submit(self._serve_next)
        try:
            return [[answer for job in group for answer in self._result(job)] for group in jobs]
        finally:
            with self._lock:
                self._requests_in_flight -= 1

    def close(self) -> None:
        """Cancel what is queued, and what is being answered at its next token."""
        with self._lock:
            self._is_closed = True
            cancelled, self._queue = self._queue, []
        for job in cancelled:
            job.done.cancel()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _result(self, job: Job) -> list[Reply | InputError]:
        try:
            return job.done.result(timeout=job.deadline.seconds_left())
        except CancelledError:
            raise TimeoutError("the server is stopping") from None

    def _is_open(self, job: Job) -> bool:
        return not self._is_closed and job.deadline.is_open()

    def _serve_next(self) -> None:
        jobs = self._take()
        try:
            replies = self._answer(jobs)
        except BaseException as error:
            for job in jobs:
                job.done.set_exception(error)
            raise
        for job in jobs:
            mine, replies = replies[: len(job.queries)], replies[len(job.queries) :]
            complete = [reply for reply in mine if reply is not None]
            # An answer that was cut short because its client had gone must not be taken for a whole one.
            if self._is_open(job) and len(complete) == len(mine):
                job.done.set_result(complete)
            else:
                job.done.set_exception(TimeoutError("the time for this request is over"))

    def _take(self) -> list[Job]:
        """The oldest job, and further jobs on its clip as far as they fit beside it.

        It is of another request than the last where there is one, so that a large request does not block the others.
        """
        with self._lock:
            ended = [job for job in self._queue if not self._is_open(job)]
            waiting = [job for job in self._queue if self._is_open(job)]
            taken = [next((job for job in waiting if job.deadline is not self._last), waiting[0])] if waiting else []
            room = self._questions_per_pack - sum(len(job.queries) for job in taken)
            for job in waiting:
                if job not in taken and job.key == taken[0].key and len(job.queries) <= room:
                    taken.append(job)
                    room -= len(job.queries)
            self._last = taken[0].deadline if taken else None
            self._queue = [job for job in waiting if job not in taken]
        for job in ended:
            job.done.set_exception(TimeoutError("the time for this request is over"))
        return taken

    def _answer(self, jobs: Sequence[Job]) -> list[Reply | InputError | None]:
        """Replies to all questions of jobs on one clip, in order; None where the deadline has passed."""
        if not jobs:
            return []
        clip, key = jobs[0].clip, jobs[0].key
        queries = [(job, query) for job in jobs for query in job.queries]
        encoder = replace(self._encoder, num_video_tokens=self._tokens_per_frame * len(clip.frames))
        cached = self._readings.get(key)
        prefix = cached.ids if cached else encoder.prefix(jobs[0].subtitles)[0]
        packs, results = self._pack([query for _, query in queries], encoder, len(prefix))
        if not packs:
            return [results.get(number) for number in range(len(queries))]
        self.counts["readings_found" if cached else "readings"] += 1
        records = [job.record for job in jobs]
        if cached:
            reading = cached
        else:
            with observation.span(observation.READING, records):
                reading = scoring.read_prefix(self._model, encoder, prefix, clip.frames)
            self._readings.put(key, reading)
        for numbers in packs:
            part = [queries[number] for number in numbers]
            if not any(self._is_open(job) for job, _ in part):
                continue
            with observation.span(observation.ANSWERING, records):
                replies = scoring.answer(
                    self._model,
                    encoder,
                    reading.copy(),
                    [query.question for _, query in part],
                    [query.max_new_tokens for _, query in part],
                    lambda place, part=part: self._is_open(part[place][0]),
                )
            results |= dict(zip(numbers, replies, strict=True))
            self.counts["packs"] += 1
            self.counts["questions"] += len(part)
        return [results.get(number) for number in range(len(queries))]

    def _pack(
        self, queries: Sequence[Query], encoder: Encoder, prefix: int
    ) -> tuple[list[list[int]], dict[int, Reply | InputError]]:
        """Numbers of questions in as few packs as fit, and errors for those that fit nowhere."""
        packs: list[list[int]] = []
        results: dict[int, Reply | InputError] = {}
        room = 0
        for number, query in enumerate(queries):
            length = len(encoder.suffix(query.question.question, query.question.choices))
            if length > MAX_QUESTION_TOKENS:
                limit = f"above the limit of {MAX_QUESTION_TOKENS}"
                results[number] = InputError(f"question and choices have {length} tokens, {limit}: shorten them")
                continue
            wanted = prefix + length + query.max_new_tokens
            if wanted > encoder.max_positions:
                limit = f"but the model knows {encoder.max_positions}"
                shorter = "ask for fewer frames or words, or shorten the subtitles"
                results[number] = InputError(f"clip, question and answer take {wanted} positions, {limit}: {shorter}")
                continue
            if not packs or length > room:
                packs.append([])
                room = MAX_PACK_TOKENS
            packs[-1].append(number)
            room -= length
        return packs, results


class ReadingCache:
    """Least recently used readings are evicted beyond a number of bytes. For the model's thread alone."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._cached: OrderedDict[tuple[str, str], Reading] = OrderedDict()

    def get(self, key: tuple[str, str]) -> Reading | None:
        if key in self._cached:
            self._cached.move_to_end(key)
        return self._cached.get(key)

    def put(self, key: tuple[str, str], reading: Reading) -> None:
        self._cached[key] = reading
        while self.num_bytes > self._max_bytes:
            self._cached.popitem(last=False)

    @property
    def num_bytes(self) -> int:
        return sum(reading.num_bytes for reading in self._cached.values())
