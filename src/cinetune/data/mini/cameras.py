"""A second drawn task, which is not CinePile's: what cameras have seen, four options, no words, plain columns.

Its world is that of CinePile-mini, so that the tiny base can look at it. A camera has its own people, and no camera is
in both splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cinetune.data import licences
from cinetune.data.mini import ask, dataset, story
from cinetune.params import MiniParams
from cinetune.task import description
from cinetune.task.description import Task

NUM_CHOICES = 4
QUESTIONS_PER_CLIP = 10
# What may be asked about a clip without words, by category.
KINDS = {
    "where": ("first_place", "last_place", "event_place", "next_place"),
    "who": ("first_person", "last_person", "meet", "part", "chase", "chased"),
    "what": ("first_event", "last_event"),
    "sky": ("weather", "time_and_place"),
}
CATEGORY_OF = {kind: category for category, kinds in KINDS.items() for kind in kinds}
TASK = Task(
    group="camera",
    min_choices=NUM_CHOICES,
    max_choices=NUM_CHOICES,
    categories={"where": "Where", "who": "Who", "what": "What happens", "sky": "Sky and hour"},
    subtitles=False,
    subject="drawn scenes before a camera",
    licence=licences.OWN,
)


def clip_id(clip: story.Clip) -> str:
    return f"camera{clip.film.film_id:03d}-{clip.index:02d}"


def make(root: Path, params: MiniParams, workers: int) -> dict[str, int]:
    """Write task.yaml, `questions/` and `clips/` under `root`; the same bytes for the same parameters."""
    clips = dataset.invent(params)
    (root / "questions").mkdir(parents=True, exist_ok=True)
    description.write(root, TASK)
    everything = {clip_id(clip): clip for split in clips.values() for clip in split}
    dataset.write_clips(root / "clips", everything, workers)
    counts = {"clips": len(everything)}
    for split, members in clips.items():
        questions = table(members, params.seed)
        questions.to_parquet(root / "questions" / f"{split}.parquet", index=False)
        counts[f"{split}_questions"] = len(questions)
    return counts


def table(clips: Sequence[story.Clip], seed: int) -> pd.DataFrame:
    """Questions of one split in plain columns; the right option's place goes through shuffled rounds, kind by kind."""
    rng = np.random.default_rng((seed, 22))
    rounds: dict[str, list[int]] = {}
    rows: list[dict[str, Any]] = []
    for clip in clips:
        fitting = [question for question in ask.candidates(clip, rng) if question.kind in CATEGORY_OF]
        for question in (fitting[i] for i in rng.permutation(len(fitting))[:QUESTIONS_PER_CLIP]):
            waiting = rounds.setdefault(question.kind, [])
            if not waiting:
                waiting += (int(i) for i in rng.permutation(NUM_CHOICES))
            position = waiting.pop()
            rows.append(
                {
                    "clip_id": clip_id(clip),
                    "question": question.text,
                    "choices": list(question.choices(rng, position, NUM_CHOICES)),
                    "answer": position,
                    "category": TASK.categories[CATEGORY_OF[question.kind]],
                    "group": f"camera {clip.film.film_id}",
                    "url": f"clips/{clip_id(clip)}.mp4",
                }
            )
    return pd.DataFrame(rows)
