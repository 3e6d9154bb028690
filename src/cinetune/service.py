"""Answers to questions about clips that come from strangers; knows nothing of MLflow.

A row that cannot be answered gets one sentence in its `error`, and the others are answered all the same.
Rows on one clip share one reading of it, and a clip seen lately is not decoded again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import os
import re
import stat
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from huggingface_hub import snapshot_download

from cinetune import answers, model, prompts, scoring, video
from cinetune import params as params_module
from cinetune.errors import InputError
from cinetune.frames import FrameSettings
from cinetune.packing import Encoder
from cinetune.params import FramesParams, ModelParams
from cinetune.questions import check_choices, check_text
from cinetune.scoring import Asked, Reply

MOST_VIDEO_BYTES = 50 << 20
MOST_TEXT_CHARS, MOST_SUBTITLE_CHARS, MOST_ERROR_CHARS = 10_000, 200_000, 300
# Attention takes memory by the square of a pack's length, and questions come from strangers.
MOST_QUESTION_TOKENS, MOST_PACK_TOKENS = 1024, 4096
CACHED_CLIPS = 64

CLIP = "clip:"
CLIP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
BASE_FILES = ("config.json", "tokenizer.json", "*.safetensors")


@dataclass(frozen=True, eq=False)
class _Clip:
    digest: str
    frames: np.ndarray


@dataclass(frozen=True, eq=False)
class _Query:
    """A row that can be answered."""

    clip: _Clip
    subtitles: str
    asked: Asked


class Service:
    """Owns the model, its tokenizer, the decoder and the frames of recent clips. Safe to share by threads."""

    def __init__(
        self,
        adapted: torch.nn.Module,
        encoder: Encoder,
        frames: FramesParams,
        clips_folder: Path,
        questions_per_pack: int,
        max_new_tokens: int,
    ) -> None:
        self._model, self._encoder = adapted, encoder
        self._settings = FrameSettings.of(frames)
        self._decoder = video.Decoder(video.Limits.of(frames))
        self._clips_folder = clips_folder
        self._questions_per_pack = questions_per_pack
        self.max_new_tokens = max_new_tokens
        # Neither the model nor a fast tokenizer may be used by two threads at once.
        self._model_lock = threading.Lock()
        self._recent: OrderedDict[str, _Clip] = OrderedDict()
        self._recent_lock = threading.Lock()

    @classmethod
    def load(cls, adapter: Path, config: Mapping[str, Any]) -> Service:
        """A warm service. Raises InputError when the base model is missing or is not the one of training."""
        if config["prompt_hash"] != prompts.template_hash():
            raise InputError(
                "this version was made with another prompt template than this code has: "
                "serve it with `mlflow models serve`, which uses its own code, or register the adapter again."
            )
        base = params_module.build(ModelParams, config["model"], "model")
        frames = params_module.build(FramesParams, config["frames"], "frames")
        folder = find_base(base, config["root"])
        if base_digest(folder) != config["base_sha256"]:
            raise InputError(
                f"base model {str(folder)!r} is not the one that this adapter was trained on: "
                "set CINETUNE_BASE_MODEL to the folder of that one."
            )
        loaded, tokenizer = model.load_base(replace(base, base=str(folder), revision=""), model.default_device())
        model.check_frame_size(loaded.config, frames.size)
        # Versions that were registered before there was a choice lose the end.
        subtitles = config["max_subtitle_tokens"], config.get("truncate", "end")
        service = cls(
            model.load_adapter(loaded, adapter),
            model.encoder_for(loaded.config, tokenizer, frames.num_frames, *subtitles),
            frames,
            _find_clips(config),
            config["questions_per_pack"],
            config["max_new_tokens"],
        )
        service.answer([example_row()], 2, None)
        return service

    def answer(
        self, rows: Sequence[Mapping[str, Any]], max_new_tokens: int, deadline: float | None
    ) -> list[dict[str, Any]]:
        """One dict a row: answer, choice, confidence, raw, error.

        Rows on one clip with the same subtitles share its prefix. Raises TimeoutError after `deadline`
        (`time.monotonic()`).
        """
        results: list[dict[str, Any] | None] = [None] * len(rows)
        groups: dict[tuple[str, str], list[tuple[int, _Query]]] = {}
        clips: dict[str, _Clip | InputError] = {}
        for number, row in enumerate(rows):
            try:
                query = self._read_row(row, clips)
            except InputError as error:
                results[number] = refused(str(error))
            else:
                groups.setdefault((query.clip.digest, query.subtitles), []).append((number, query))
        for group in groups.values():
            clip, subtitles = group[0][1].clip, group[0][1].subtitles
            asked = [query.asked for _, query in group]
            replies = self._ask(clip.frames, subtitles, asked, max_new_tokens, deadline)
            for (number, query), reply in zip(group, replies, strict=True):
                is_reply = isinstance(reply, Reply)
                results[number] = answered(query.asked, reply) if is_reply else refused(str(reply))
        return results

    def _read_row(self, row: Mapping[str, Any], clips: dict[str, _Clip | InputError]) -> _Query:
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
            try:
                clips[source] = self._look(source)
            except InputError as error:
                clips[source] = error
        clip = clips[source]
        if isinstance(clip, InputError):
            raise clip
        return _Query(clip, subtitles, asked)

    def _look(self, source: str) -> _Clip:
        name = None
        if source.startswith(CLIP):
            content, name = read_clip(self._clips_folder, source.removeprefix(CLIP)), source
        else:
            content = read_upload(source)
        digest = hashlib.sha256(content).hexdigest()
        with self._recent_lock:
            if digest in self._recent:
                self._recent.move_to_end(digest)
                return self._recent[digest]
        clip = _Clip(digest, self._decoder.read(content, self._settings, name).frames)
        with self._recent_lock:
            self._recent[digest] = clip
            while len(self._recent) > CACHED_CLIPS:
                self._recent.popitem(last=False)
        return clip

    def _ask(
        self,
        frames: np.ndarray,
        subtitles: str,
        asked: Sequence[Asked],
        max_new_tokens: int,
        deadline: float | None,
    ) -> list[Reply | InputError]:
        """Replies to questions about one clip in as few packs as fit; an error for one that is too long."""
        patience = -1 if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._model_lock.acquire(timeout=patience):
            raise TimeoutError("the model was busy for too long")
        try:
            results: list[Reply | InputError | None] = [None] * len(asked)
            packs: list[list[int]] = []
            room = 0
            for number, item in enumerate(asked):
                length = len(self._encoder.suffix(item.question, item.choices))
                if length > MOST_QUESTION_TOKENS:
                    limit = f"above the limit of {MOST_QUESTION_TOKENS}"
                    reason = f"question and choices have {length} tokens, {limit}: shorten them"
                    results[number] = InputError(reason)
                    continue
                if not packs or len(packs[-1]) == self._questions_per_pack or length > room:
                    packs.append([])
                    room = MOST_PACK_TOKENS
                packs[-1].append(number)
                room -= length
            for numbers in packs:
                part = [asked[number] for number in numbers]
                replies = scoring.reply(self._model, self._encoder, subtitles, frames, part, max_new_tokens, deadline)
                for number, reply in zip(numbers, replies, strict=True):
                    results[number] = reply
            return results
        finally:
            self._model_lock.release()


def answered(asked: Asked, reply: Reply) -> dict[str, Any]:
    """What a client gets for a reply.

    The words decide. Where they name no option the most probable one is taken: no guess, for it is what the
    model holds likeliest, and `raw` shows what it said. `confidence` is the probability of the option taken.
    """
    cleaned = answers.clean(reply.raw, asked.choices)
    if asked.choices is None:
        return {"answer": cleaned.answer, "choice": None, "confidence": None, "raw": reply.raw, "error": None}
    letter = cleaned.choice or reply.letter
    index = answers.LETTERS.index(letter)
    confidence = reply.probabilities[index]
    if not math.isfinite(confidence):
        raise RuntimeError("the model's probabilities are not numbers")
    text = " ".join(asked.choices[index].split())
    return {"answer": text, "choice": letter, "confidence": confidence, "raw": reply.raw, "error": None}


def refused(reason: str) -> dict[str, Any]:
    """What a client gets for a row that cannot be answered: one sentence, not endless."""
    words = " ".join(reason.split()).removesuffix(".")
    shown = words if len(words) <= MOST_ERROR_CHARS else words[:MOST_ERROR_CHARS] + ".."
    return {"answer": "", "choice": None, "confidence": None, "raw": "", "error": f"{shown}."}


def _present(value: Any) -> Any:
    """None for what tables put where nothing is."""
    return None if value is pd.NA or (isinstance(value, float) and math.isnan(value)) else value


def read_upload(text: str) -> bytes:
    """The bytes of a video in base64. Raises InputError for anything else; nothing is ever opened by name."""
    if len(text) > MOST_VIDEO_BYTES * 4 // 3 + MOST_TEXT_CHARS:
        raise InputError(f"video is above the limit of {MOST_VIDEO_BYTES >> 20} MB: scale it down or cut it")
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        wanted = "the base64 of a video file, or clip:<clip_id>"
        raise InputError(f"video must be {wanted}: paths and addresses are not opened") from None
    if len(content) > MOST_VIDEO_BYTES:
        raise InputError(f"video is above the limit of {MOST_VIDEO_BYTES >> 20} MB: scale it down or cut it")
    return content


def read_clip(folder: Path, clip_id: str) -> bytes:
    """The file of a clip in the served folder. Raises InputError for other names and links that lead out."""
    if not CLIP_ID.fullmatch(clip_id):
        allowed = "at most 64 letters, digits, - and _"
        raise InputError(f"clip:{clip_id[:80]!r} names no clip: an id is made of {allowed}")
    try:
        root = folder.resolve(strict=True)
        path = (root / f"{clip_id}.mp4").resolve(strict=True)
        if not path.is_relative_to(root):
            raise FileNotFoundError
        # What was checked must be what is opened, and opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError
            content = file.read(MOST_VIDEO_BYTES + 1)
    except (OSError, RuntimeError):
        # Python 3.11 tells of a loop of links by RuntimeError.
        raise InputError(f"clip {clip_id!r} is not among the clips that are served here") from None
    if len(content) > MOST_VIDEO_BYTES:
        raise InputError(f"clip {clip_id!r} is above the limit of {MOST_VIDEO_BYTES >> 20} MB")
    return content


# ---- where things are


def find_base(params: ModelParams, root: str) -> Path:
    """The folder of a version's base model.

    CINETUNE_BASE_MODEL (a folder or a hub id) comes before what the params say. A relative folder is looked
    for under CINETUNE_ROOT, the current directory and `root`, the project's folder when it was logged.
    """
    override = os.environ.get("CINETUNE_BASE_MODEL")
    wanted = replace(params, base=override, revision="") if override else params
    for folder in _places(wanted.base, root):
        if folder.is_dir():
            return folder
    try:
        model.check_base(wanted.base)
    except InputError:
        raise InputError(
            f"base model {wanted.base!r} is not there: start the server in the project's root after "
            "`dvc pull base-model.dvc`, or set CINETUNE_BASE_MODEL to its folder."
        ) from None
    try:
        patterns = ["*.json", "*.safetensors", "*.model"]
        return Path(snapshot_download(wanted.base, revision=wanted.revision or None, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"base model {wanted.base!r} cannot be fetched from the hub: {reason}") from None


def base_digest(folder: Path) -> str:
    """sha256 over the names and contents of a base's configuration, tokenizer and weights."""
    total = hashlib.sha256()
    for path in sorted({path for pattern in BASE_FILES for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _find_clips(config: Mapping[str, Any]) -> Path:
    override = os.environ.get("CINETUNE_CLIPS")
    places = [Path(override)] if override else _places(config["clips"], config["root"])
    return next((place for place in places if place.is_dir()), places[0])


def _places(name: str, root: str) -> list[Path]:
    """Where a folder that is named relative to the project may be; one place for an absolute name."""
    return [Path(start) / name for start in (os.environ.get("CINETUNE_ROOT"), ".", root) if start]


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
