"""Question files of strangers: good rows go on, each bad one is listed with its reason, and no row stops the rest."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from builders.questions import CHOICES, row
from builders.refusals import sentence
from cinetune.data import intake
from cinetune.data.sources import selection
from cinetune.task import questions
from cinetune.task.data_card import DataCard

pytestmark = pytest.mark.data


def read(path: Path, tmp_path: Path) -> intake.Intake:
    (tmp_path / "out").mkdir(exist_ok=True)
    return intake.read(str(path), "", None, tmp_path / "out")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path, index=False)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: str(v) if isinstance(v, list) else v for k, v in r.items()} for r in rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json", ".jsonl"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_come_through_every_format_as_cinepile_has_them(tmp_path: Path, suffix: str, split: str) -> None:
    taken = read(write(tmp_path / f"{split}-0{suffix}", [row(0, extra="ignored"), row(1, extra="")]), tmp_path)
    assert taken.rejected == [] and taken.num_rows == 2
    [clip] = questions.load(_root(tmp_path), split)
    assert clip.clip_id == "-aB3_xyz-09" and clip.group == "Harbour / Men, 2 (1992)" and len(clip.questions) == 2
    # Options that look like missing values are options.
    assert clip.questions[0].choices == tuple(CHOICES) and clip.questions[0].answer == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{split}.parquet"]


def _root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    (root / "questions").symlink_to(tmp_path / "out")
    return root


BAD: dict[str, dict[str, Any]] = {
    "no question": {"question": None},
    "empty question": {"question": " "},
    "a number as question": {"question": float("nan")},
    "no choices": {"choices": []},
    "one choice": {"choices": ["a"]},
    "four choices": {"choices": CHOICES[:4]},
    "six choices": {"choices": [*CHOICES, "f"]},
    "27 choices": {"choices": [str(i) for i in range(27)]},
    "choices as text": {"choices": "in a boat, on a hill, at sea, None, nan"},
    "none among choices": {"choices": [*CHOICES[:4], None]},
    "same choices": {"choices": ["a", "a ", "b", "c", "d"]},
    "index -1": {"answer_key_position": -1},
    "index 5": {"answer_key_position": 5},
    "index as text": {"answer_key_position": "2"},
    "index 2.5": {"answer_key_position": 2.5},
    "index true": {"answer_key_position": True},
    "no index": {"answer_key_position": None},
    "another key": {"answer_key": "at sea"},
    "no key": {"answer_key": None},
    "unknown category": {"question_category": "Weather"},
    "no subtitles": {"subtitles": None},
    "year as text": {"year": "MCMXCII"},
    "no film": {"movie_name": ""},
    "genre as text": {"genre": "Drama"},
    "half a surrogate": {"subtitles": "\udcff"},
    "no link": {"yt_clip_link": None},
    "playlist": {"yt_clip_link": "https://youtube.com/playlist?list=PL01234567890"},
    "short id": {"yt_clip_link": "https://youtube.com/watch?v=abc"},
    "id with a path": {"yt_clip_link": "a.mp4", "clip_id": "../a"},
    "another scheme": {"yt_clip_link": "concat:a|b"},
    "asked before": {"question": "Where does scene 0 begin?"},
    "another film": {"year": 1993},
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_row_is_listed_with_its_reason_and_costs_no_other(tmp_path: Path, name: str) -> None:
    rows = [row(0), row(1, **BAD[name]), row(2)]
    taken = read(write(tmp_path / "test.json", rows), tmp_path)
    assert [rejected["row"] for rejected in taken.rejected] == ["test.json, row 1"]
    [reason] = [rejected["reason"] for rejected in taken.rejected]
    assert 10 < len(reason) <= 300 and "\n" not in reason
    reason.encode()
    assert [q.text for q in questions.load(_root(tmp_path), "test")[0].questions] == [
        row(0)["question"],
        row(2)["question"],
    ]


def test_hostile_text_that_is_text_goes_on(tmp_path: Path) -> None:
    subtitles = "<video> USER: ASSISTANT: \0 \u202e שלום " + "x" * 1_000_000
    taken = read(write(tmp_path / "test.csv", [row(0), row(1, subtitles=subtitles, yt_clip_link="a.mp4")]), tmp_path)
    assert taken.rejected == [] and len(taken.first(0)) == 2


def test_a_csv_line_that_is_broken_is_one_rejected_row(tmp_path: Path) -> None:
    path = write(tmp_path / "test.csv", [row(0), row(1), row(2)])
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 4
    path.write_bytes(b"".join([*lines, b"too,few\n", lines[-1].replace(b"False", b"\xff\xfe")]))
    taken = read(path, tmp_path)
    assert len(taken.rejected) == 2 and sum(taken.questions["test"].values()) == 3


def test_parquet_text_that_is_not_utf8_is_one_rejected_row(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(0), row(1), row(2)])
    texts = pa.array([b"one", b"\xff\xfe", b"three"], pa.binary())
    spoilt = pa.StringArray.from_buffers(3, texts.buffers()[1], texts.buffers()[2])
    table = table.set_column(table.schema.get_field_index("subtitles"), "subtitles", spoilt)
    pyarrow.parquet.write_table(table, tmp_path / "test.parquet")
    taken = read(tmp_path / "test.parquet", tmp_path)
    assert [rejected["row"] for rejected in taken.rejected] == ["test.parquet, row 1"]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.with_suffix(".parquet"),
        lambda path: _text(path.with_suffix(".xlsx"), ""),
        lambda path: _text(path.with_suffix(".parquet"), "no parquet"),
        lambda path: _text(path.with_suffix(".json"), "[{"),
        lambda path: _text(path.with_suffix(".csv"), ""),
        lambda path: _text(path.with_suffix(".csv"), "question,choices\na,b\n"),
        lambda path: _text(path.with_suffix(".jsonl"), "\n\n"),
        lambda path: write(path.with_suffix(".parquet"), [{k: v for k, v in row().items() if k != "year"}]),
        lambda path: path.parent,
    ],
)
def test_a_file_that_cannot_be_used_at_all_is_one_sentence(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "test")
    assert str(path) in sentence(lambda: read(path, tmp_path))


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_reason_shows_no_keys_of_an_address(tmp_path: Path) -> None:
    addresses = ["http://me:PASS@host/a.mp4?key=SECRET&v=1", "http://me:PASS@host/b.mp4?v=2&token=SECRET"]
    rows = [row(number, yt_clip_link=address, clip_id="same") for number, address in enumerate(addresses)]
    [rejected] = read(write(tmp_path / "test.jsonl", rows), tmp_path).rejected
    assert "SECRET" not in rejected["reason"] and "PASS" not in rejected["reason"]
    assert "host/b.mp4?v=2&token=..." in rejected["reason"]


def test_a_list_of_links_gives_clips_without_questions(tmp_path: Path) -> None:
    path = _text(
        tmp_path / "links.csv",
        "url,title\nhttps://youtube.com/watch?v=-aB3_xyz-09,Harbour Men (1992) - Fog Scene (1/2) | X\nnowhere:,T\n",
    )
    taken = read(path, tmp_path)
    assert [clip.film for clip in taken.first(0)] == ["Harbour Men (1992)"] and len(taken.rejected) == 1
    assert list((tmp_path / "out").iterdir()) == []


def films_of(path: Path, tmp_path: Path) -> tuple[list[str], list[str]]:
    """Films of the clips, and the rows that were rejected."""
    taken = read(path, tmp_path)
    return [clip.film for clip in taken.first(0)], [rejected["row"].split(" ")[-1] for rejected in taken.rejected]


def test_the_majority_of_a_clips_rows_decides_its_film(tmp_path: Path) -> None:
    rows = [row(0, year=1993), *(row(number) for number in range(19)), row(19, movie_name="HARBOUR / Men,  2")]
    films, rejected = films_of(write(tmp_path / "test.jsonl", rows), tmp_path)
    assert films == ["Harbour / Men, 2 (1992)"] and rejected == ["0"]
    [clip] = questions.load(_root(tmp_path), "test")
    assert len(clip.questions) == 20 and clip.group == "Harbour / Men, 2 (1992)"
    [reason] = [rejected["reason"] for rejected in read(tmp_path / "test.jsonl", tmp_path).rejected]
    assert "1992" in reason and "1993" in reason and "20 rows" in reason


def test_of_as_many_rows_the_first_decides(tmp_path: Path) -> None:
    films, rejected = films_of(write(tmp_path / "test.json", [row(0), row(1, year=1993)]), tmp_path)
    assert films == ["Harbour / Men, 2 (1992)"] and rejected == ["1"]


def test_the_majority_of_a_clips_titles_decides_its_film(tmp_path: Path) -> None:
    titles = ["Fog (1992) - A Scene | X", "Fog (1982) - A Scene | X", "Fog (1982) - A Scene | X"]
    rows = [{"url": "https://youtu.be/-aB3_xyz-09", "title": title} for title in titles]
    pd.DataFrame(rows).to_csv(tmp_path / "links.csv", index=False)
    assert films_of(tmp_path / "links.csv", tmp_path) == (["Fog (1982)"], ["0"])


@pytest.mark.parametrize(
    "name",
    [
        "cinepile_test.csv", "validation.jsonl", "my-val.json", "dev.csv", "train_and_test.csv", "test_train.csv",
        "latest.csv", "eval/part-0.csv", "test/part-0.csv",
    ],
)  # fmt: skip
def test_a_name_that_may_mean_held_out_questions_is_refused_until_the_split_is_said(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path, [row(0)])
    text = sentence(lambda: read(path, tmp_path))
    assert f"train={path}" in text and f"test={path}" in text
    for split in ("train", "test"):
        taken = intake.read(f"{split}={path}", "", None, tmp_path / "out")
        assert taken.questions[split] and list((tmp_path / "out").glob("*.parquet")) == [
            tmp_path / f"out/{split}.parquet"
        ]
        (tmp_path / f"out/{split}.parquet").unlink()


@pytest.mark.parametrize(
    ("name", "split"),
    [("test-00000-of-1.csv", "test"), ("TEST.csv", "test"), ("train.csv", "train"), ("questions.csv", "train")],
)
def test_a_split_is_what_a_name_begins_with(tmp_path: Path, name: str, split: str) -> None:
    assert read(write(tmp_path / name, [row(0)]), tmp_path).questions[split]


def test_a_split_that_is_neither_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [row(0)])
    assert "'val'" in sentence(lambda: intake.read(f"val={path}", "", None, tmp_path))


def test_both_splits_are_drawn_on_in_turn_and_a_limit_holds_for_questions_too(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(
            tmp_path / f"{split}.jsonl",
            [row(i, yt_clip_link=f"{split}{i}.mp4", clip_id=f"{split}{i}") for i in range(4)],
        )
    (tmp_path / "out").mkdir()
    taken = intake.read(f"{tmp_path}/test.jsonl|{tmp_path}/train.jsonl", "", None, tmp_path / "out")
    assert [clip.clip_id for clip in taken.first(3)] == ["train0", "test0", "train1"]
    (tmp_path / "kept" / "questions").mkdir(parents=True)
    selection.place(taken, taken.first(3), tmp_path / "out", tmp_path / "kept", DataCard(), is_told=False)
    assert [clip.clip_id for clip in questions.load(tmp_path / "kept", "train")] == ["train0", "train1"]


def test_clips_without_questions_have_their_film_by_all_titles_together(tmp_path: Path) -> None:
    titles = ["Grey Harbour (2011) - Bay Scene | X", "GREY HARBOUR (2011) - Fog Scene | X", "Grey Harbour - Fog | X"]
    titles.append("Grey Harbour (2011) - Gulls Scene | X")
    rows = [{"url": f"http://127.0.0.1/{number}", "title": title} for number, title in enumerate(titles)]
    pd.DataFrame(rows).to_csv(tmp_path / "links.csv", index=False)
    taken = intake.read(str(tmp_path / "links.csv"), "", None, tmp_path)
    assert {clip.film for clip in taken.first(0)} == {"Grey Harbour (2011)"} and len(taken.first(0)) == 4
