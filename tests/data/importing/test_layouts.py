"""Published layouts, in small files that were made up in their columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cinetune.data.importing import records, sources
from cinetune.data.importing.records import Record
from cinetune.data.sources.rows import READERS
from cinetune.errors import InputError

OPTIONS = ["run", "4", "sit", "2", "eat"]


def read(path: Path, layout: str) -> list[Record]:
    rows = list(sources.read(str(path), layout))
    return [records.read(row.content, 0, row.split) for row in rows if not isinstance(row.content, str)]


def lettered(options: list[str]) -> dict[str, str]:
    return {f"a{place}": option for place, option in enumerate(options)}


def write_nextqa(folder: Path) -> Path:
    path = folder / "val.csv"
    row = {"video": 4010069381, "frame_count": 369, "width": 640, "height": 480, "question": "how many did they see"}
    rows = [row | {"answer": answer, "qid": 6, "type": "CH"} | lettered(OPTIONS) for answer in (3, "eat")]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def write_egoschema(folder: Path) -> Path:
    path = folder / "questions.json"
    options = {f"option {place}": option for place, option in enumerate(OPTIONS)}
    row = {"google_drive_id": "x", "question": "What was c doing?"} | options
    path.write_text(json.dumps([row | {"q_uid": "uid-1"}, row | {"q_uid": "uid-2", "answer": 4}]))
    (folder / "subset_answers.json").write_text(json.dumps({"uid-1": 3}))
    return path


def write_egoschema_of_the_hub(folder: Path) -> Path:
    path = folder / "test.parquet"
    row = {"question_idx": "1", "question": "What was c doing?", "video_idx": "uid-1", "option": OPTIONS}
    pd.DataFrame([row | {"answer": "3"}, row | {"answer": "4"}]).to_parquet(path)
    return path


def write_mvbench(folder: Path) -> Path:
    path = folder / "action_sequence.json"
    row = {"video": "ZS9XR.mp4", "question": "What happened after?", "candidates": OPTIONS}
    path.write_text(json.dumps([row | {"answer": "2", "start": 11.1, "end": 17.2}, row | {"answer": "eat"}]))
    return path


def write_video_mme(folder: Path) -> Path:
    path = folder / "test-00000-of-00001.parquet"
    row = {
        "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Geography",
        "url": "https://www.youtube.com/watch?v=AAAAAAAAAAA", "videoID": "AAAAAAAAAAA", "question_id": "001-1",
        "task_type": "Counting Problem", "question": "How many?",
        "options": [f"{letter}. {option}" for letter, option in zip("ABCDE", OPTIONS, strict=True)],
    }  # fmt: skip
    pd.DataFrame([row | {"answer": "D"}, row | {"answer": "E"}]).to_parquet(path)
    return path


def write_tvqa(folder: Path) -> Path:
    path = folder / "tvqa_val.jsonl"
    row: dict[str, Any] = {"q": "How many?", "ts": "1.2-5.8", "vid_name": "s01e02_seg02_clip_04", "show_name": "A"}
    rows = [row | {"qid": place, "answer_idx": place} | lettered(OPTIONS) for place in (3, 4)]
    path.write_text("\n".join(map(json.dumps, rows)))
    (folder / "tvqa_subtitles").mkdir()
    spoken = "1\n00:00:01,000 --> 00:00:02,000\nTwo of them.\n"
    (folder / "tvqa_subtitles" / "s01e02_seg02_clip_04.srt").write_text(spoken)
    return path


WRITERS = {
    "nextqa": (write_nextqa, "4010069381", "CH", ""),
    "egoschema": (write_egoschema, "uid-1", "", ""),
    "egoschema ": (write_egoschema_of_the_hub, "uid-1", "", ""),
    "mvbench": (write_mvbench, "ZS9XR.mp4", "action_sequence", ""),
    "video_mme": (write_video_mme, "AAAAAAAAAAA", "Counting Problem", ""),
    "tvqa": (write_tvqa, "s01e02_seg02_clip_04", "", "Two of them."),
}


@pytest.mark.parametrize("layout", WRITERS)
def test_a_published_layout_gives_plain_rows(tmp_path: Path, layout: str) -> None:
    write, video, category, words = WRITERS[layout]
    first, second = read(write(tmp_path), layout.strip())
    assert (first.video, first.category, first.subtitles) == (video, category, words)
    assert first.choices == tuple(OPTIONS) == second.choices
    # An index is never taken for the text of another option.
    assert (first.answer, second.answer) == (3, 4)
    assert (first.start_s, first.end_s) == ((11.1, 17.2) if layout == "mvbench" else (0.0, 0.0))


@pytest.mark.parametrize("layout", sorted({name.strip() for name in WRITERS}))
def test_a_file_of_another_layout_costs_its_rows(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "questions.json"
    path.write_text(json.dumps([{"video": "a.mp4", "prompt": "Where?"}]))
    (row,) = sources.read(str(path), layout)
    assert isinstance(row.content, str) and "is missing" in row.content


WRONG = [
    None, "", " ", -1, 2.5, 1e308, True, [], [[]], {}, {"a": 1}, "A", "\0", "x" * 5000, "9" * 400, "9" * 400 + ":00",
    10**400, float("nan"), float("inf"), "../a", "a/" * 300, ["a", None], ["a", ["b"]], ["x"] * 11, "|", '["a"', "file:///a",
]  # fmt: skip


@pytest.mark.parametrize("layout", ["plain", *WRITERS])
def test_any_value_in_any_column_is_read_or_costs_its_row_a_reason(tmp_path: Path, layout: str) -> None:
    plain = {"video": "a", "question": "Where?", "choices": "x|y", "answer": "x", "start": 1, "end": 2, "split": "test"}
    if layout == "plain":
        right = plain | {"category": "place", "group": "g", "subtitles": "Look."}
    else:
        path = WRITERS[layout][0](tmp_path)
        right = next(iter(READERS[path.suffix](path)))
    path = tmp_path / "wrong.jsonl"
    rows = [right, *(right | {column: value} for column in right for value in WRONG)]
    path.write_text("".join(f"{json.dumps(row, default=list)}\n" for row in rows))
    found = list(sources.read(str(path), layout.strip(), ()))
    assert len(found) == len(rows)
    for row in found:
        try:
            assert isinstance(row.content, str) or records.read(row.content, 0, row.split).question
        except InputError as error:
            assert str(error).strip()
