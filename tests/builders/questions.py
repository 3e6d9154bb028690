"""Rows in CinePile's columns, and what is taken in of a file of them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from cinetune.data import intake
from cinetune.task import questions
from cinetune.task.questions import ClipQuestions

CHOICES = ["in a boat", "on a hill", "at sea", "None", "nan"]


def row(number: int = 0, **changed: Any) -> dict[str, Any]:
    return {
        "movie_name": "Harbour / Men, 2",
        "year": 1992,
        "genre": ["Drama"],
        "yt_clip_title": "Harbour Men (1992) - Fog Scene",
        "yt_clip_link": "https://youtube.com/watch?v=-aB3_xyz-09",
        "movie_scene": "Fog. <subtitle> Who is there?",
        "subtitles": "<subtitle> Who is there?",
        "question": f"Where does scene {number} begin?",
        "choices": CHOICES,
        "answer_key": "None",
        "answer_key_position": 3,
        "question_category": "Setting and\nTechnical Analysis",
        "hard_split": "False",
        "visual_reliance": "1",
    } | changed


def take(path: Path) -> tuple[intake.Intake, list[ClipQuestions]]:
    """What `download` takes in of a file, and what the other stages read afterwards."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "questions"
        folder.mkdir()
        taken = intake.read(str(path), "", None, folder)
        [split] = [split for split, asked in taken.questions.items() if asked]
        return taken, questions.load(root, split)
