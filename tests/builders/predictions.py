"""Predictions as `evaluate` writes them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from cinetune.task.description import CINEPILE


def make_predictions(num_clips: int = 12, num_questions: int = 10, skill: float = 0.5, seed: int = 0) -> pd.DataFrame:
    """Predictions as evaluate writes them; the last clip is missing."""
    generator = np.random.default_rng(seed)
    gold_generator = np.random.default_rng(99)
    categories = list(CINEPILE.shorts)
    rows = []
    for clip in range(num_clips):
        for number in range(num_questions):
            gold = "ABCDE"[gold_generator.integers(5)]
            letter = gold if generator.random() < skill else "ABCDE"[generator.integers(5)]
            is_missing = clip == num_clips - 1
            probabilities = np.full(5, 0.1)
            probabilities["ABCDE".index(letter)] = 0.6
            row = {
                "question_id": f"clip{clip:02d}-{number:02d}",
                "clip_id": f"clip{clip:02d}",
                "film": f"film{clip // 2} (2001)",
                "category": categories[number % 5],
                "hard_split": "True" if number % 3 == 0 else "False",
                "visual_reliance": str(number % 2),
                "gold": gold,
                "raw": None if is_missing else f"({letter})",
                "strict": None,
                "lenient": None if is_missing else letter,
                "logit": None if is_missing else letter,
                "status": "missing_clip" if is_missing else "ok",
            }
            for position, name in enumerate("ABCDE"):
                row[f"p_{name}"] = math.nan if is_missing else float(probabilities[position])
            rows.append(row)
    return pd.DataFrame(rows)


def rotated(places, choose):
    """Predictions under a rotation of a chooser: gold place in the data, rotation -> place chosen as asked."""
    rows = make_predictions(num_clips=4).assign(rotation=places, status="ok")
    gold = rows["gold"].map("ABCDE".index)
    rows["gold"] = ["ABCDE"[(place - places) % 5] for place in gold]
    rows["logit"] = ["ABCDE"[choose(place, places)] for place in gold]
    return rows


def predictions(accuracy: float, seed: int = 0, n: int = 400) -> pd.DataFrame:
    """Ten questions a clip; which of them are answered rightly is drawn by `seed`."""
    right = np.random.default_rng(seed).random(n) < accuracy
    letters = np.where(right, "A", "B")
    return pd.DataFrame(
        {
            "question_id": [f"q{i}" for i in range(n)],
            "clip_id": [f"c{i // 10}" for i in range(n)],
            "film": [f"f{i // 30}" for i in range(n)],
            "category": next(iter(CINEPILE.shorts)),
            "hard_split": "False",
            "visual_reliance": "0",
            "question": "?",
            "gold": "A",
            "raw": letters,
            **dict.fromkeys(("strict", "lenient", "logit"), letters),
            **{f"p_{letter}": 0.2 for letter in "ABCDE"},
            "status": "ok",
        }
    )
