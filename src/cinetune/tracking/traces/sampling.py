"""Some questions of an evaluation as traces, for those who want to see what was seen.

Its questions share passes, and may come from a run that was killed: these traces say nothing of time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cinetune.evaluation.predictions import OK, PROBABILITIES
from cinetune.runtime.observation import Observation
from cinetune.task.description import LETTERS
from cinetune.task.questions import ClipQuestions, Question
from cinetune.tracking.traces import writing

if TYPE_CHECKING:
    import pandas as pd


def choose(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Answered questions of an evaluation, wrong ones first, the same for the same seed."""
    answered = table[(table["status"] == OK) & table["logit"].notna() & (table["rotation"] == 0)]
    mixed = answered.sample(frac=1, random_state=seed)
    is_right = (mixed["logit"] == mixed["gold"]).to_numpy()
    return mixed.iloc[np.argsort(is_right, kind="stable")[:count]]


def write_sample(
    table: pd.DataFrame,
    clips: Sequence[ClipQuestions],
    frames_of: Callable[[str], np.ndarray],
    tags: Mapping[str, str],
    has_content: bool,
    run_id: str,
) -> list[str]:
    """A trace of each row of a table of predictions, listed with a run; their ids.

    frames_of: uint8 [num_frames, size, size, 3] by clip id, asked for only where there is content.
    """
    by_id = {question.question_id: (clip, question) for clip in clips for question in clip.questions}
    written = []
    for row in table.to_dict("records"):
        clip, question = by_id[row["question_id"]]
        frames = frames_of(clip.clip_id) if has_content else np.empty((0, 1, 1, 3), dtype=np.uint8)
        seen = observation_of(row, clip, question, frames)
        written.append(writing.write(seen, {**tags, "question_id": question.question_id}, has_content, run_id))
    return written


def observation_of(row: Mapping[str, Any], clip: ClipQuestions, question: Question, frames: np.ndarray) -> Observation:
    """A row of predictions with its question, as the answer of a server would be seen."""
    letter = row["logit"]
    answer = {"answer": question.choices[LETTERS.index(letter)], "choice": letter, "raw": row["raw"], "error": None}
    about = {
        "clip_id": clip.clip_id,
        "group": clip.group.removesuffix(f" ({clip.year})"),
        "year": clip.year,
        "url": clip.url,
        "category": question.category,
        "hard_split": question.hard_split,
        "visual_reliance": question.visual_reliance,
    }
    probabilities = [float(row[name]) for name in PROBABILITIES[: len(question.choices)]]
    gold = {"gold": row["gold"]}
    return Observation(
        question.text, question.choices, clip.subtitles, frames, answer | gold, probabilities, about=about
    )
