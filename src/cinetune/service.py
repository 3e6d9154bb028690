"""Answers to questions about clips that come from strangers; knows nothing of MLflow.

A row that cannot be answered gets one sentence in its `error`, and the others are answered all the same.
Rows on one clip share one reading of it, and a clip seen lately is not decoded again.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import queue
import tempfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cinetune import answers, model, places, prompts, sources, video
from cinetune import params as params_module
from cinetune.engine import Clip, Engine, Query
from cinetune.errors import InputError
from cinetune.frames import ClipFrames, FrameSettings, identity
from cinetune.packing import Encoder
from cinetune.params import FramesParams, ModelParams, ServeParams
from cinetune.provenance import folder_digest
from cinetune.questions import check_choices, check_text
from cinetune.scoring import Asked, Reply
from cinetune.tickets import Ticket

MOST_TEXT_CHARS, MOST_SUBTITLE_CHARS, MOST_ERROR_CHARS = 10_000, 200_000, 300
SCORERS = ("lenient", "strict", "logit")


@dataclass(frozen=True)
class Options:
    """How a request wants to be answered.

    scorer: what decides between options: `lenient` and `strict` read the model's words (lenient takes the
    likeliest option where they name none), `logit` takes the likeliest and makes no words.
    """

    max_new_tokens: int
    scorer: str
    num_frames: int


@dataclass(frozen=True, eq=False)
class _Row:
    """A row that can be answered."""

    clip: Clip
    subtitles: str
    query: Query


class Service:
    """Owns the model, the decoders and the frames of recent clips. Safe to share by threads."""

    def __init__(
        self,
        adapted: torch.nn.Module,
        encoder: Encoder,
        frames: FramesParams,
        clips_folder: Path,
        limits: ServeParams,
        questions_per_pack: int,
        max_new_tokens: int,
    ) -> None:
        self.frames, self.limits, self.clips_folder = frames, limits, clips_folder
        self.defaults = Options(max_new_tokens, "lenient", frames.num_frames)
        self.engine = Engine(
            adapted,
            encoder,
            frames.num_frames,
            questions_per_pack,
            limits.most_waiting,
            limits.cached_prefix_mb << 20,
        )
        self._settings = FrameSettings.of(frames)
        self._decoders = DecoderPool(video.Limits.of(replace(frames, timeout_s=limits.decode_timeout_s)), limits)
        self._url_hosts = [host.strip().lower() for host in limits.url_hosts.split(",") if host.strip()]
        self._recent = ClipCache(limits.cached_clips)

    @classmethod
    def load(cls, adapter: Path, config: Mapping[str, Any], base: Path | None = None) -> Service:
        """A warm service; `base` is the folder of a base that a version brings with it.

        Raises InputError when the base model is missing or is not the one of training, and when the adapter's
        files are not those that were registered.
        """
        if config["prompt_hash"] != prompts.template_hash():
            raise InputError(
                "this version was made with another prompt template than this code has: "
                "serve it with `mlflow models serve`, which uses its own code, or register the adapter again."
            )
        if folder_digest(adapter) != config["adapter_sha256"]:
            raise InputError("the adapter's files are not those that were registered: fetch the version again.")
        params = params_module.build(ModelParams, config["model"], "model")
        frames = params_module.build(FramesParams, config["frames"], "frames")
        folder = base or places.find_base(params, config["root"])
        if places.base_digest(folder) != config["base_sha256"]:
            raise InputError(
                f"base model {str(folder)!r} is not the one that this adapter was trained on: "
                "set CINETUNE_BASE_MODEL to the folder of that one."
            )
        loaded, tokenizer = model.load_base(replace(params, base=str(folder), revision=""), model.default_device())
        model.check_frame_size(loaded.config, frames.size)
        # Versions that were registered before there was a choice lose the end.
        subtitles = config["max_subtitle_tokens"], config.get("truncate", "end")
        service = cls(
            model.load_adapter(loaded, adapter),
            model.encoder_for(loaded.config, tokenizer, frames.num_frames, *subtitles),
            frames,
            places.find_clips(config),
            limits_of(config),
            config["questions_per_pack"],
            config["max_new_tokens"],
        )
        service.warm_up()
        return service

    def warm_up(self) -> None:
        """Start a decoder and run every path once, so that the first client does not wait for it."""
        row = example_row()
        ticket = Ticket(None)
        self.answer([row, row | {"choices": None}], replace(self.defaults, max_new_tokens=2), ticket)

    def close(self) -> None:
        self.engine.close()
        self._decoders.close()

    def counts(self) -> Counter[str]:
        """Totals since the start."""
        return self.engine.counts + self._recent.counts

    def answer(self, rows: Sequence[Mapping[str, Any]], options: Options, ticket: Ticket) -> list[dict[str, Any]]:
        """One answer a row, in order.

        Raises BusyError when too much waits already, and TimeoutError once the ticket has ended.
        """
        results: list[dict[str, Any]] = [{} for _ in rows]
        groups: dict[tuple[str, str], list[tuple[int, _Row]]] = {}
        clips: dict[str, Clip | InputError] = {}
        for number, row in enumerate(rows):
            try:
                found = self._read_row(row, options, ticket, clips)
            except InputError as error:
                results[number] = refused(str(error))
            else:
                groups.setdefault((found.clip.digest, found.subtitles), []).append((number, found))
        asked = [(g[0][1].clip, g[0][1].subtitles, [row.query for _, row in g]) for g in groups.values()]
        for group, replies in zip(groups.values(), self.engine.ask(asked, ticket), strict=True):
            for (number, row), reply in zip(group, replies, strict=True):
                results[number] = _shown(row.query.asked, reply, options.scorer)
        return results

    def ask(self, frames: ClipFrames, subtitles: str, asked: Asked) -> dict[str, Any]:
        """The answer to one question about frames that are at hand; subtitles beyond the limit lose their end."""
        query = self._query(asked, self.defaults)
        [[reply]] = self.engine.ask([(Clip("", frames.frames), subtitles, [query])], Ticket(None))
        return _shown(asked, reply, self.defaults.scorer)

    def _read_row(
        self, row: Mapping[str, Any], options: Options, ticket: Ticket, clips: dict[str, Clip | InputError]
    ) -> _Row:
        """Raises InputError for a row that cannot be answered; `clips` keeps what this request has read."""
        names = ("video", "question", "choices", "subtitles")
        source, question, choices, subtitles = (_present(row.get(name)) for name in names)
        subtitles = "" if subtitles is None else subtitles
        reason = check_text("video", source) or check_text("question", question)
        if reason is None and choices is not None:
            reason = check_choices(choices)
        if reason:
            raise InputError(reason)
        asked = Asked(question, None if choices is None else tuple(str(choice) for choice in choices))
        if max(map(len, (question, *(asked.choices or ())))) > MOST_TEXT_CHARS:
            raise InputError(f"question and choices may hold {MOST_TEXT_CHARS} characters each: shorten them")
        if not isinstance(subtitles, str) or len(subtitles) > MOST_SUBTITLE_CHARS:
            raise InputError(f"subtitles must be text of at most {MOST_SUBTITLE_CHARS} characters")
        if source not in clips:
            ticket.check()
            try:
                clips[source] = self._look(source, options.num_frames, ticket)
            except InputError as error:
                clips[source] = error
        clip = clips[source]
        if isinstance(clip, InputError):
            raise clip
        return _Row(clip, subtitles, self._query(asked, options))

    def _query(self, asked: Asked, options: Options) -> Query:
        needs_words = asked.choices is None or options.scorer != "logit"
        return Query(asked, options.max_new_tokens if needs_words else 0)

    def _look(self, source: str, num_frames: int, ticket: Ticket) -> Clip:
        name = source if source.startswith(sources.CLIP) else None
        content = sources.read(source, self.clips_folder, self._url_hosts, self.limits.decode_timeout_s)
        settings = replace(self._settings, num_frames=num_frames)
        digest = f"{hashlib.sha256(content).hexdigest()}-{identity(settings)}"

        def decode() -> Clip:
            with self._decoders.borrow(ticket) as decoder:
                return Clip(digest, decoder.read(content, settings, name).frames)

        return self._recent.read(digest, decode, ticket)


class DecoderPool:
    """As many decoding processes as may run at once; each starts when it is first needed."""

    def __init__(self, limits: video.Limits, serve: ServeParams) -> None:
        self._all = [video.Decoder(limits) for _ in range(serve.decoders)]
        # The one used last is taken first: a second process starts only when two are needed.
        self._idle: queue.LifoQueue[video.Decoder] = queue.LifoQueue()
        for decoder in self._all:
            self._idle.put(decoder)

    @contextmanager
    def borrow(self, ticket: Ticket) -> Iterator[video.Decoder]:
        """Raises TimeoutError when none is free before the ticket ends."""
        try:
            decoder = self._idle.get(timeout=ticket.seconds_left())
        except queue.Empty:
            raise TimeoutError("no decoder was free in time") from None
        try:
            ticket.check()
            yield decoder
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        for decoder in self._all:
            decoder.close()


class ClipCache:
    """The clips used last. What several threads want at once is decoded by the first of them alone."""

    def __init__(self, most_clips: int) -> None:
        self._most_clips = most_clips
        self._kept: OrderedDict[str, Future[Clip]] = OrderedDict()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, digest: str, decode: Callable[[], Clip], ticket: Ticket) -> Clip:
        while True:
            with self._lock:
                kept = self._kept.get(digest)
                if kept is None:
                    own = self._kept[digest] = Future()
                    self.counts["clips_decoded"] += 1
                    while len(self._kept) > self._most_clips:
                        self._kept.popitem(last=False)
                else:
                    self._kept.move_to_end(digest)
                    self.counts["clips_found"] += 1
            if kept is None:
                return self._fill(digest, own, decode)
            try:
                return kept.result(timeout=ticket.seconds_left())
            except TimeoutError:
                # The one that decodes may have given up; this one has its own time.
                ticket.check()

    def _fill(self, digest: str, own: Future[Clip], decode: Callable[[], Clip]) -> Clip:
        try:
            clip = decode()
        except BaseException as error:
            with self._lock:
                if self._kept.get(digest) is own:
                    del self._kept[digest]
            own.set_exception(error)
            raise
        own.set_result(clip)
        return clip


def limits_of(config: Mapping[str, Any]) -> ServeParams:
    """A version's limits, with what CINETUNE_SERVE changes of them ("timeout_s=30;cached_clips=8")."""
    pairs = [pair.partition("=") for pair in os.environ.get("CINETUNE_SERVE", "").split(";") if pair.strip()]
    changed = {name.strip(): value.strip() for name, _, value in pairs}
    return params_module.build(ServeParams, config["serve"] | changed, "serve")


def _shown(asked: Asked, reply: Reply | InputError, scorer: str) -> dict[str, Any]:
    return answered(asked, reply, scorer) if isinstance(reply, Reply) else refused(str(reply))


def answered(asked: Asked, reply: Reply, scorer: str) -> dict[str, Any]:
    """What a client gets for a reply.

    Under `lenient` the words decide. Where they name no option the most probable one is taken: no guess, for it
    is what the model holds likeliest, and `raw` shows what it said. `confidence` is the probability of the option
    taken.
    """
    found = {"answer": "", "choice": None, "confidence": None, "raw": reply.raw, "error": None}
    if asked.choices is None:
        return found | {"answer": answers.clean(reply.raw, None).answer}
    letter = {
        "lenient": answers.parse_lenient(reply.raw, asked.choices) or reply.letter,
        "strict": answers.parse_strict(reply.raw, asked.choices),
        "logit": reply.letter,
    }[scorer]
    if letter is None:
        return found
    index = answers.LETTERS.index(letter)
    confidence = reply.probabilities[index]
    if not math.isfinite(confidence):
        raise RuntimeError("the model's probabilities are not numbers")
    text = " ".join(asked.choices[index].split())
    return found | {"answer": text, "choice": letter, "confidence": confidence}


def refused(reason: str) -> dict[str, Any]:
    """What a client gets for a row that cannot be answered: one sentence, not endless."""
    words = " ".join(reason.split()).removesuffix(".")
    shown = words if len(words) <= MOST_ERROR_CHARS else words[:MOST_ERROR_CHARS] + ".."
    return {"answer": "", "choice": None, "confidence": None, "raw": "", "error": f"{shown}."}


def _present(value: Any) -> Any:
    """None for what tables put where nothing is."""
    return None if value is pd.NA or (isinstance(value, float) and math.isnan(value)) else value


def example_row() -> dict[str, Any]:
    """A row that any version answers: one second of a square that moves."""
    pictures = np.full((12, 64, 64, 3), 90, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        picture[24:40, 4 * number : 4 * number + 16] = (230, 200, 40)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "example.mp4"
        video.encode(path, pictures, 12)
        content = base64.b64encode(path.read_bytes()).decode()
    return {
        "video": content,
        "question": "Where does the square go?",
        "choices": ["to the right", "to the left", "up", "down", "nowhere"],
        "subtitles": "<subtitle> Look at it go.",
    }
