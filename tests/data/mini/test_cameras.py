"""The second example is not CinePile-shaped, right by construction, and gives nothing away to the blind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cinetune.data.mini import cameras, dataset
from cinetune.params import MiniParams
from cinetune.task import description, questions

pytestmark = pytest.mark.data

MANY = MiniParams(40, 20, 2, 4048, "cameras")


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {split: cameras.table(clips, MANY.seed) for split, clips in dataset.invent(MANY).items()}


def test_the_folder_is_made_whole_and_the_same_again(tmp_path: Path) -> None:
    small = MiniParams(2, 1, 1, 5, "cameras")
    for name in ("one", "other"):
        counts = cameras.make(tmp_path / name, small, 1)
        assert counts == {"clips": 3, "train_questions": 20, "test_questions": 10}
    for path in (path for path in (tmp_path / "one").rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / "other" / path.relative_to(tmp_path / "one")).read_bytes()
    task = description.of_folder(tmp_path / "one")
    assert task == cameras.TASK and (task.letters, task.groups, task.subtitles) == ("ABCD", "cameras", False)
    clips = questions.load(tmp_path / "one", "train")
    assert {clip.group for clip in clips} == {"camera 0", "camera 1"}
    assert all((tmp_path / "one" / clip.url).is_file() and not clip.subtitles for clip in clips)


def test_cameras_of_training_and_test_are_apart(tables: dict[str, pd.DataFrame]) -> None:
    groups = {split: set(table["group"]) for split, table in tables.items()}
    assert len(groups["train"]) == 40 and not groups["train"] & groups["test"]


def test_every_category_is_asked_about(tables: dict[str, pd.DataFrame]) -> None:
    for table in tables.values():
        assert set(table["category"]) == set(cameras.TASK.categories.values())
        assert table["category"].value_counts(normalize=True).min() > 0.1


def test_no_letter_and_no_text_gives_the_answer_away(tables: dict[str, pd.DataFrame]) -> None:
    """Always the same letter, and the option that is right most often elsewhere, do no better than a guess."""
    train, test = tables["train"], tables["test"]
    for table in tables.values():
        assert table["answer"].value_counts(normalize=True).between(0.2, 0.3).all()
    right = Counter(row.choices[row.answer] for row in train.itertuples())
    shown = Counter(choice for choices in train["choices"] for choice in choices)
    guesses = [
        int(np.argmax([right[choice] / max(1, shown[choice]) for choice in row.choices])) == row.answer
        for row in test.itertuples()
    ]
    assert abs(np.mean(guesses) - 1 / 4) < 3 * np.sqrt(1 / 4 * 3 / 4 / len(guesses))
