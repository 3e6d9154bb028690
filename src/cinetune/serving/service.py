"""Answers to questions about untrusted clips; independent of MLflow.

A row that cannot be answered gets one sentence in its `error`, and the others are answered all the same.
Rows on one clip share one reading of it, and recent clips are cached.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cinetune import params as params_module
from cinetune.answers.cleanup import clean
from cinetune.answers.lenient import parse_lenient
from cinetune.answers.strict import parse_strict
from cinetune.artifacts import Adapter
from cinetune.errors import InputError
from cinetune.files import folder_digest, text_digest
from cinetune.frames.decoder import Decoder
from cinetune.frames.images import listing
from cinetune.frames.images.decoder import ImageDecoder
from cinetune.frames.limits import Limits
from cinetune.frames.sampling import ClipFrames, FrameSettings, identity
from cinetune.frames.store import frames_digest
from cinetune.inference.scoring import QuestionPrompt, Reply
from cinetune.model import lookup
from cinetune.model.base import check_frame_size, default_device, load_base
from cinetune.model.encoder import Encoder, encoder_for, encoder_of
from cinetune.model.lora import load_adapter
from cinetune.params import FramesParams, ModelParams, Params, ServeParams
from cinetune.runtime import observation
from cinetune.runtime.observation import Observation
from cinetune.serving import sources
from cinetune.serving.batching import Clip, Engine, Query
from cinetune.serving.pools import ClipCache, DecoderPool
from cinetune.serving.requests import row as asked_row
from cinetune.serving.requests.example import example_row
from cinetune.serving.requests.form import Options
from cinetune.serving.server.deadline import Deadline
from cinetune.task import description, prompts
from cinetune.task.description import LETTERS

MAX_ERROR_CHARS = 300
# Why a request as a whole is not answered.
TIME_OVER = "the time for this request is over: send fewer rows, or raise the server's timeout."
MANY_WAITING = "as many requests are waiting as there is room for: send this again in a moment."
FAILED = "the model failed on this request: see the server's log."
# What a row is asked about.
Shown = str | bytes | tuple[str, ...]
ANSWER = ("answer", "choice", "confidence", "raw", "error")


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
        self.task = encoder.task
        self.defaults = Options(max_new_tokens, "lenient", frames.num_frames)
        self.engine = Engine(
            adapted,
            encoder,
            frames.num_frames,
            questions_per_pack,
            limits.max_waiting,
            limits.cached_prefix_mb << 20,
        )
        self._settings = FrameSettings.of(frames)
        # A request waits for it, whatever the size of its video.
        bounds = replace(Limits.of(frames), timeout_s=limits.decode_timeout_s, cpu_s_per_megapixel_s=0.0)
        self._decoders = DecoderPool(partial(Decoder, bounds), limits.decoders)
        self._image_decoders = DecoderPool(partial(ImageDecoder, bounds, frames.images_per_s), limits.decoders)
        self._url_hosts = [host.strip().lower() for host in limits.url_hosts.split(",") if host.strip()]
        self._cache = ClipCache(limits.cached_clips)
        # Called with what was seen and answered: of `ask` always, of `answer` with a share of its rows.
        self.observe: Callable[[Observation], None] | None = None

    @classmethod
    def load(cls, adapter: Path, config: Mapping[str, Any], base: Path | None = None) -> Service:
        """A warm service; `base` is the folder of a base that a version brings with it.

        Raises InputError when the base model is missing or is not the one of training, and when the adapter's
        files are not those that were registered.
        """
        # Versions that were registered before there were other tasks are CinePile's.
        task = description.saved(config.get("task"))
        if config["prompt_hash"] != prompts.template_hash(task):
            raise InputError(
                "this version was made with another prompt template than this code has: "
                "serve it with `mlflow models serve`, which uses its own code, or register the adapter again."
            )
        if folder_digest(adapter) != config["adapter_sha256"]:
            raise InputError("the adapter's files are not those that were registered: fetch the version again.")
        params = params_module.build(ModelParams, config["model"], "model")
        frames = params_module.build(FramesParams, config["frames"], "frames")
        folder = base or lookup.find_base(params, config["root"])
        if not lookup.has_digest(folder, config["base_sha256"]):
            raise InputError(
                f"base model {str(folder)!r} is not the one that this adapter was trained on: "
                "set CINETUNE_BASE_MODEL to the folder of that one."
            )
        loaded, tokenizer = load_base(replace(params, base=str(folder), revision=""), default_device())
        check_frame_size(loaded.config, frames.size)
        # Versions that were registered before there was a choice lose the end.
        subtitles = config["max_subtitle_tokens"], config.get("truncate", "end")
        service = cls(
            load_adapter(loaded, adapter),
            encoder_for(loaded.config, tokenizer, frames.num_frames, *subtitles, task),
            frames,
            sources.find_clips(config),
            limits_of(config),
            config["questions_per_pack"],
            config["max_new_tokens"],
        )
        service.warm_up()
        return service

    @classmethod
    def of_adapter(cls, adapter: Adapter, params: Params) -> Service:
        """The service of an adapter's folder, with the settings that it was trained with."""
        params = adapter.params(params)
        base, tokenizer = load_base(params.model, default_device())
        check_frame_size(base.config, params.frames.size)
        return cls(
            load_adapter(base, adapter.folder),
            encoder_of(params, base.config, tokenizer, adapter.task),
            params.frames,
            Path(params.data.root) / "clips",
            params.serve,
            params.evaluate.questions_per_pack,
            params.evaluate.max_new_tokens,
        )

    def warm_up(self) -> None:
        """Start a decoder and run every path once, so that the first client does not wait for it.

        Raises InputError where not even the example can be answered.
        """
        row = example_row(self.task)
        rows = [row, row | {"choices": None}]
        for result in self.answer(rows, replace(self.defaults, max_new_tokens=2), Deadline(None)):
            if result["error"]:
                raise InputError(f"the model cannot answer its own example: {result['error']}")

    def close(self) -> None:
        self.engine.close()
        self._decoders.close()
        self._image_decoders.close()

    @property
    def has_image_clips(self) -> bool:
        """Are the clips that are served folders of images?"""
        return self.frames.source == "images"

    def counts(self) -> Counter[str]:
        """Totals since the start."""
        return self.engine.counts + self._cache.counts

    def answer(self, rows: Sequence[Mapping[str, Any]], options: Options, deadline: Deadline) -> list[dict[str, Any]]:
        """One answer a row, in order.

        Raises BusyError when the queue is full, and TimeoutError once the deadline has passed.
        """
        with observation.recording() if self.observe else nullcontext():
            return self._answer(rows, options, deadline)

    def _answer(self, rows: Sequence[Mapping[str, Any]], options: Options, deadline: Deadline) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = [{} for _ in rows]
        groups: dict[tuple[str, str], list[tuple[int, _Row]]] = {}
        clips: dict[Shown, Clip | str] = {}
        for number, row in enumerate(rows):
            try:
                found = self._read_row(row, options, deadline, clips)
            except InputError as error:
                results[number] = refused(str(error))
            else:
                groups.setdefault((found.clip.digest, found.subtitles), []).append((number, found))
        queries = [(g[0][1].clip, g[0][1].subtitles, [found.query for _, found in g]) for g in groups.values()]
        for group, replies in zip(groups.values(), self.engine.ask(queries, deadline), strict=True):
            for (number, found), reply in zip(group, replies, strict=True):
                results[number] = _shown(found.query.question, reply, options.scorer)
                self._tell_share(found, reply, results[number])
        return results

    def reply(self, row: Mapping[str, Any], options: Options, deadline: Deadline) -> Reply:
        """The model's own words about one row, the options' probabilities and counts of tokens.

        Raises InputError for a row that cannot be answered, BusyError and TimeoutError as `answer` does.
        """
        with observation.recording() if self.observe else nullcontext():
            found = self._read_row(row, options, deadline, {})
            [[reply]] = self.engine.ask([(found.clip, found.subtitles, [found.query])], deadline)
            if isinstance(reply, InputError):
                raise reply
            self._tell_share(found, reply, _shown(found.query.question, reply, options.scorer))
            return reply

    def _tell_share(self, found: _Row, reply: Reply | InputError, answer: Mapping[str, Any]) -> None:
        if self.observe and random.random() < self.limits.trace_share:
            self._tell(found.query.question, found.subtitles, found.clip.frames, reply, answer)

    def _tell(
        self,
        question: QuestionPrompt,
        subtitles: str,
        frames: np.ndarray,
        reply: Reply | InputError,
        answer: Mapping[str, Any],
    ) -> None:
        record = observation.current()
        if self.observe:
            self.observe(
                Observation(
                    question.question,
                    question.choices,
                    subtitles,
                    frames,
                    answer,
                    reply.probabilities if isinstance(reply, Reply) else None,
                    tuple(record.spans) if record else (),
                )
            )

    def ask(self, frames: ClipFrames, subtitles: str, question: QuestionPrompt) -> dict[str, Any]:
        """The answer to one question about decoded frames; subtitles beyond the limit are truncated."""
        [reply] = self.replies(frames, subtitles, [question])
        answer = self.shown(question, reply)
        self._tell(question, subtitles, frames.frames, reply, answer)
        return answer

    def replies(
        self, frames: ClipFrames, subtitles: str, questions: Sequence[QuestionPrompt]
    ) -> list[Reply | InputError]:
        """The model's replies to questions about decoded frames, which are read once for all of them."""
        queries = [self._query(question, self.defaults) for question in questions]
        # Clips of one digest would share one reading.
        clip = Clip(frames_digest(frames.frames), frames.frames)
        [replies] = self.engine.ask([(clip, subtitles, queries)], Deadline(None))
        return replies

    def shown(self, question: QuestionPrompt, reply: Reply | InputError) -> dict[str, Any]:
        """What a client gets for a reply, or for an error in its place."""
        return _shown(question, reply, self.defaults.scorer)

    def _read_row(
        self,
        row: Mapping[str, Any],
        options: Options,
        deadline: Deadline,
        clips: dict[Shown, Clip | str],
    ) -> _Row:
        """Raises InputError for a row that cannot be answered; `clips` caches this request's videos."""
        asked = asked_row.read(row, self.task)
        source = asked.shown
        if source not in clips:
            deadline.check()
            try:
                clips[source] = self._decode(source, options.num_frames, deadline)
            except InputError as error:
                # The error itself would keep the video as long as itself.
                clips[source] = str(error)
        clip = clips[source]
        if isinstance(clip, str):
            raise InputError(clip)
        return _Row(clip, asked.subtitles, self._query(asked.question, options))

    def _query(self, question: QuestionPrompt, options: Options) -> Query:
        needs_words = question.choices is None or options.scorer != "logit"
        return Query(question, options.max_new_tokens if needs_words else 0)

    def _decode(self, source: Shown, num_frames: int, deadline: Deadline) -> Clip:
        settings = replace(self._settings, num_frames=num_frames)
        with observation.span(observation.FETCHING):
            content, digest, decoders = self._fetch(source)
        name = source if isinstance(source, str) and source.startswith(sources.CLIP) else None
        key = f"{digest}-{identity(settings)}"

        def decode() -> Clip:
            with decoders.borrow(deadline) as decoder, observation.span(observation.DECODING):
                return Clip(key, decoder.read(content, settings, name).frames)

        return self._cache.read(key, decode, deadline)

    def _fetch(self, source: Shown) -> tuple[Any, str, DecoderPool[Any]]:
        """What a decoder takes (a video's bytes, those of each image, a folder), its digest, and such decoders."""
        timeout_s = self.limits.decode_timeout_s
        if isinstance(source, tuple):
            images = sources.read_images(source, self._url_hosts, timeout_s)
            # Each by itself, for where one ends decides what is shown.
            digest = text_digest("".join(hashlib.sha256(image).hexdigest() for image in images))
            return images, digest, self._image_decoders
        if self.has_image_clips and isinstance(source, str) and source.startswith(sources.CLIP):
            folder = sources.find_images(self.clips_folder, source.removeprefix(sources.CLIP))
            digest = listing.digest(folder, self.frames.images_per_s, _version_of)
            return folder, digest or str(folder), self._image_decoders
        content = sources.read(source, self.clips_folder, self._url_hosts, timeout_s)
        return content, hashlib.sha256(content).hexdigest(), self._decoders


def _version_of(path: Path) -> str:
    """Another one for a file that was written since: a folder's images are too many to be read for each request."""
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def limits_of(config: Mapping[str, Any]) -> ServeParams:
    """A version's limits, with what CINETUNE_SERVE changes of them ("timeout_s=30;cached_clips=8")."""
    pairs = [pair.partition("=") for pair in os.environ.get("CINETUNE_SERVE", "").split(";") if pair.strip()]
    changed = {name.strip(): value.strip() for name, _, value in pairs}
    kept = {params_module.RENAMED["serve"].get(name, name): value for name, value in config["serve"].items()}
    return params_module.build(ServeParams, kept | changed, "serve")


def _shown(question: QuestionPrompt, reply: Reply | InputError, scorer: str) -> dict[str, Any]:
    return answered(question, reply, scorer) if isinstance(reply, Reply) else refused(str(reply))


def answered(question: QuestionPrompt, reply: Reply, scorer: str) -> dict[str, Any]:
    """What a client gets for a reply.

    Under `lenient` the words decide. Where they name no option the most probable one is taken: no guess, for it
    is what the model holds likeliest, and `raw` shows what it said. `confidence` is the probability of the option
    taken.
    """
    found = {"answer": "", "choice": None, "confidence": None, "raw": reply.raw, "error": None}
    if question.choices is None:
        return found | {"answer": clean(reply.raw, None).answer}
    letter = {
        "lenient": parse_lenient(reply.raw, question.choices) or reply.letter,
        "strict": parse_strict(reply.raw, question.choices),
        "logit": reply.letter,
    }[scorer]
    if letter is None:
        return found
    index = LETTERS.index(letter)
    confidence = reply.probabilities[index] if reply.probabilities else math.nan
    if not math.isfinite(confidence):
        raise RuntimeError("the model's probabilities are NaN or inf")
    text = " ".join(question.choices[index].split())
    return found | {"answer": text, "choice": letter, "confidence": confidence}


def refused(reason: str) -> dict[str, Any]:
    """What a client gets for a row that cannot be answered."""
    return {"answer": "", "choice": None, "confidence": None, "raw": "", "error": one_sentence(reason)}


def one_sentence(reason: str) -> str:
    """Why something is refused, in bounded length."""
    words = " ".join(reason.split()).removesuffix(".")
    shown = words if len(words) <= MAX_ERROR_CHARS else words[:MAX_ERROR_CHARS] + ".."
    return f"{shown}."
