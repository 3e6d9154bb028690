"""Questions that a folder holds stay, unless their end was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from builders.questions import row
from builders.refusals import sentence
from cinetune.data import download, intake
from cinetune.data.sources import selection
from cinetune.task.data_card import DataCard

pytestmark = pytest.mark.data


def file_of(folder: Path, name: str, numbers: range | list[int], **changed: object) -> Path:
    rows = [row(number, yt_clip_link=f"{number}.mp4", clip_id=f"clip{number}", **changed) for number in numbers]
    (folder / name).write_text(json.dumps(rows), encoding="utf-8")
    return folder / name


def take(sources: str, folder: Path, max_clips: int = 0, is_told: bool = False) -> None:
    """As the command does it."""
    (folder / "questions").mkdir(parents=True, exist_ok=True)
    with download.scratch(folder) as new:
        taken = intake.read(sources, "", None, new)
        taken.check()
        about = DataCard()
        selection.place(taken, taken.first(max_clips), new, folder, about, is_told)


def clips_of(folder: Path, split: str = "train") -> list[str]:
    return pd.read_parquet(folder / "questions" / f"{split}.parquet").clip_id.tolist()


def test_a_smaller_selection_leaves_what_is_there(tmp_path: Path) -> None:
    path, folder = file_of(tmp_path, "train.json", range(5)), tmp_path / "data"
    take(str(path), folder, max_clips=2)
    assert clips_of(folder) == ["clip0", "clip1"]
    take(str(path), folder)
    assert len(clips_of(folder)) == 5
    take(str(path), folder, max_clips=1)
    assert len(clips_of(folder)) == 5
    take(str(path), folder, max_clips=1, is_told=True)
    assert clips_of(folder) == ["clip0"]


@pytest.mark.parametrize(
    ("numbers", "changed"), [(range(4), {}), (range(9), {"question": "Another one?"}), ([0], {}), (range(3, 9), {})]
)
def test_sources_that_lack_questions_of_the_folder_are_refused_until_that_is_asked_for(
    tmp_path: Path, numbers: range | list[int], changed: dict[str, object]
) -> None:
    folder = tmp_path / "data"
    take(f"{file_of(tmp_path, 'train.json', range(5))}|{file_of(tmp_path, 'test.json', range(2))}", folder)
    before = {path.name: path.read_bytes() for path in (folder / "questions").iterdir()}
    other = file_of(tmp_path, "train_2.json", numbers, **changed)
    text = sentence(lambda: take(f"{other}|{tmp_path / 'test.json'}", folder))
    assert "replace=true" in text and "data_dir" in text and "train.parquet" in text
    assert {path.name: path.read_bytes() for path in (folder / "questions").iterdir()} == before
    take(str(other), folder, is_told=True)
    assert clips_of(folder) == [f"clip{number}" for number in numbers] and len(clips_of(folder, "test")) == 2


@pytest.mark.parametrize("text", ["", "[", '[{"question": "Who?"}]', '{"data": []}', "url,title\nhttp://h/a,A\n"])
def test_a_file_that_cannot_be_used_and_a_list_of_links_leave_the_questions_alone(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "data"
    take(str(file_of(tmp_path, "train.json", range(5))), folder)
    before = (folder / "questions" / "train.parquet").read_bytes()
    is_links = text.startswith("url")
    path = tmp_path / ("links.csv" if is_links else "train.json")
    path.write_text(text, encoding="utf-8")
    if is_links:
        take(str(path), folder)
    else:
        sentence(lambda: take(str(path), folder))
    assert [path.name for path in (folder / "questions").iterdir()] == ["train.parquet"]
    assert (folder / "questions" / "train.parquet").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "questions"]


def test_rows_of_which_none_can_be_used_leave_the_questions_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    take(str(file_of(tmp_path, "train.json", range(5))), folder)
    bad = file_of(tmp_path, "train.json", range(5), answer_key="no option")
    assert "none of the 5 rows" in sentence(lambda: take(str(bad), folder))
    assert len(clips_of(folder)) == 5
