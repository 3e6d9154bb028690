"""The proof that an export is the model: the same questions asked of both, logits and answers held against each other.

The export is opened by a program of its own (opener.py), which does not know this package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cinetune.errors import InputError, reason_of
from cinetune.export import opener, prompt
from cinetune.files import write_json
from cinetune.inference import scoring
from cinetune.inference.scoring import QuestionPrompt, Reply
from cinetune.model import proof
from cinetune.model.base import answer_logits
from cinetune.model.encoder import Encoder
from cinetune.model.packing import collate, normalise, pack
from cinetune.task.description import LETTERS
from cinetune.task.questions import ClipQuestions, Question

PACKAGE = "cinetune"
# Four rounding steps of float32 at the largest pixel, 2.15: with torchvision installed, transformers divides in another
# order than we do. One of a frame's 255 levels is 0.014.
PIXEL_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Case:
    """Questions of one clip; frames: uint8 [num_frames, size, size, 3]."""

    clip: ClipQuestions
    questions: tuple[Question, ...]
    frames: np.ndarray

    @property
    def asked(self) -> list[QuestionPrompt]:
        return [QuestionPrompt(question.text, question.options) for question in self.questions]

    def ids(self, encoder: Encoder) -> list[list[int]]:
        """Token ids of each question behind the clip."""
        prefix = encoder.prefix(self.clip.subtitles)[0]
        suffixes = encoder.suffixes([(item.question, item.choices) for item in self.asked])
        return [[*prefix, *suffix] for suffix in suffixes]


def choose_cases(clips: Sequence[ClipQuestions], count: int, frames_of: Callable[[str], np.ndarray]) -> list[Case]:
    """`count` questions, or all where there are fewer: a question of each clip, then a second of each."""
    order = [(number, index) for index, clip in enumerate(clips) for number in range(len(clip.questions))]
    chosen: dict[int, int] = {}
    for _, index in sorted(order)[:count]:
        chosen[index] = chosen.get(index, 0) + 1
    return [
        Case(clips[index], clips[index].questions[:number], frames_of(clips[index].clip_id))
        for index, number in sorted(chosen.items())
    ]


def served_replies(model: torch.nn.Module, encoder: Encoder, cases: Sequence[Case], max_new_tokens: int) -> list[Reply]:
    """What the model answers as it is evaluated and served: one reply a question, in packs."""
    return [
        reply
        for case in cases
        for reply in scoring.reply(model, encoder, case.clip.subtitles, case.frames, case.asked, max_new_tokens)
    ]


@torch.inference_mode()
def packed_logits(model: torch.nn.Module, encoder: Encoder, cases: Sequence[Case]) -> np.ndarray:
    """[questions, vocabulary] behind each question, a clip's questions in one pass."""
    weight, padding = model.get_input_embeddings().weight, encoder.tokenizer.pad_token_id or 0
    found = []
    for case in cases:
        suffixes = encoder.suffixes([(item.question, item.choices) for item in case.asked])
        item = pack(encoder.prefix(case.clip.subtitles)[0], suffixes, None, case.frames)
        batch = collate([item], padding, weight.dtype, weight.device)
        found.append(answer_logits(model, batch).float().cpu().numpy())
    return np.concatenate(found)


@torch.inference_mode()
def single_logits(model: torch.nn.Module, encoder: Encoder, cases: Sequence[Case]) -> np.ndarray:
    """The same with each question in a pass of its own, its attention that of any model."""
    model.set_attn_implementation("sdpa")
    weight = model.get_input_embeddings().weight
    found = []
    for case in cases:
        pixels = normalise(torch.from_numpy(case.frames)[None]).to(weight.device, weight.dtype)
        for ids in case.ids(encoder):
            given = torch.tensor([ids], device=weight.device)
            logits = model(input_ids=given, pixel_values_videos=pixels, use_cache=False, logits_to_keep=1).logits
            found.append(logits[0, -1].float().cpu().numpy())
    return np.stack(found)


@dataclass(frozen=True, eq=False)
class Opened:
    """What an export answers; logits: [questions, vocabulary]."""

    logits: np.ndarray
    words: list[str]
    pixel_difference: float
    versions: Mapping[str, str]


def open_export(
    folder: Path,
    to: str,
    base: Path | None,
    encoder: Encoder,
    cases: Sequence[Case],
    dtype: torch.dtype,
    device: str,
    max_new_tokens: int,
) -> Opened:
    """Ask an export the same questions by a process that does not import this package.

    base: the folder of the base model of an adapter. Raises InputError where the export cannot be opened, or makes
    other tokens of a question.
    """
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        jobs: list[dict[str, Any]] = []
        for number, case in enumerate(cases):
            np.save(work / f"{number}.frames.npy", case.frames)
            np.save(work / f"{number}.pixels.npy", normalise(torch.from_numpy(case.frames)).numpy())
            for question, ids in zip(case.questions, case.ids(encoder), strict=True):
                chat = prompt.message(encoder, case.clip.subtitles, question.text, question.options, len(case.frames))
                jobs.append({"clip": number, "message": chat, "ids": ids})
        job = {
            "to": to, "folder": str(folder.absolute()), "base": str(base.absolute()) if base else "", "cases": jobs,
            "dtype": str(dtype).removeprefix("torch."), "device": device, "max_new_tokens": max_new_tokens,
        }  # fmt: skip
        write_json(work / "job.json", job)
        _run_opener(work)
        results = json.loads((work / "results.json").read_text(encoding="utf-8"))
        if PACKAGE in results["packages"]:
            raise AssertionError("the export was opened with this package's help: that proves nothing")
        answers = results["answers"]
        if any(answer["ids"] != given["ids"] for answer, given in zip(answers, jobs, strict=True)):
            raise InputError("the export makes other tokens of our prompt than we do, so it is not kept.")
        return Opened(
            np.load(work / "logits.npy"),
            [answer["words"] for answer in answers],
            # Not of Python, whose largest is not NaN where one is.
            float(np.max([answer["pixel_difference"] for answer in answers])),
            results["versions"],
        )


def _run_opener(work: Path) -> None:
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    # Isolated: neither PYTHONPATH nor the current folder leads to this package.
    command = [sys.executable, "-I", opener.__file__, str(work)]
    done = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise InputError(f"the export cannot be opened by plain transformers: {reason_of(RuntimeError(lines[-1]))}.")


def rounding_step(logits: np.ndarray, dtype: torch.dtype) -> float:
    """One rounding step of a type at the largest of these numbers."""
    return float(np.abs(logits).max() * torch.finfo(dtype).eps)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest; infinite where either is no number, which must not pass for a small one."""
    return float(np.nan_to_num(np.abs(one - other), nan=np.inf).max())


def check(ours: np.ndarray, opened: Opened, dtype: torch.dtype) -> None:
    """Raises InputError for an export that differs by more than one rounding step of its type, or sees otherwise."""
    found, step = difference(ours, opened.logits), rounding_step(ours, dtype)
    if not found <= step:
        raise InputError(
            f"the export's logits differ by {found:.2g} from ours, where one rounding step is {step:.2g}: it is not "
            "kept; install the versions of torch and transformers of pyproject.toml."
        )
    if not opened.pixel_difference <= PIXEL_ROUNDING:
        raise InputError(
            f"the export's pixels differ by {opened.pixel_difference:.2g} from ours, where rounding explains "
            f"{PIXEL_ROUNDING:g}: it is not kept; install the version of transformers of pyproject.toml."
        )


def check_merged(served: np.ndarray, merged: np.ndarray, dtype: torch.dtype) -> None:
    """Raises InputError where merging has changed logits by more than rounding explains."""
    share = np.linalg.norm(served - merged, axis=-1) / np.linalg.norm(served, axis=-1)
    found, limit = float(np.nan_to_num(share, nan=np.inf).max()), proof.LIMITS[dtype]
    if not found <= limit:
        raise InputError(
            f"merging the adapter changes logits by {found:.2g} of their length, where rounding explains {limit:g}: "
            "export it as export.to=adapter."
        )


def letters_of(logits: np.ndarray, encoder: Encoder, cases: Sequence[Case]) -> list[str | None]:
    """The most probable option of each question; None for an open one."""
    counts = [len(question.choices) for case in cases for question in case.questions]
    return [
        LETTERS[int(row[encoder.letters(count)].argmax())] if count else None
        for row, count in zip(logits, counts, strict=True)
    ]
