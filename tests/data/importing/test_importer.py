"""A data folder out of question files and videos: what is taken, what is counted with a reason, and how it is split."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from builders.videos import LIMITS, UNIFORM, numbered, numbers
from cinetune.data.importing import importer, library
from cinetune.data.importing.importer import Imported
from cinetune.data.links import Link
from cinetune.errors import InputError
from cinetune.frames.decoder import Decoder
from cinetune.frames.encoding import encode
from cinetune.params import ImportParams
from cinetune.task import data_card, description, questions

pytestmark = pytest.mark.data
COLUMNS = ("video", "question", "choices", "answer")
CHOICES = "at home|at sea|in town"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    encode(path, numbered(120), 12)
    return path


@pytest.fixture
def videos(tmp_path: Path, film: Path) -> Path:
    folder = tmp_path / "videos"
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4", "sub/e 5 é.mp4", "f.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(film, folder / name)
    return folder


def row(video: str = "a.mp4", question: str = "Where?", answer: Any = "A", **values: Any) -> dict[str, Any]:
    return {"video": video, "question": question, "choices": CHOICES, "answer": answer} | values


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], **options: Any) -> Path:
    names = list(dict.fromkeys(name for each in rows for name in each)) or list(COLUMNS)
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, names, **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def params_of(tmp_path: Path, questions: Path | str, **values: Any) -> ImportParams:
    given = {
        "questions": str(questions), "traces": "", "videos": str(tmp_path / "videos"), "out": str(tmp_path / "mydata"),
        "layout": "plain", "test_fraction": 0.25, "seed": 1, "name": "", "group": "", "licence": "",
    }  # fmt: skip
    return ImportParams(**given | values)


def no_links(links: Sequence[Link]) -> Mapping[str, Path | str]:
    raise AssertionError(links)


def run(tmp_path: Path, rows: Sequence[Mapping[str, Any]] | Path | str, **values: Any) -> Imported:
    given = rows if isinstance(rows, Path | str) else write_csv(tmp_path / "mine.csv", rows)
    return importer.run(params_of(tmp_path, given, **values), no_links, 20.0, 1.0)


def table(tmp_path: Path, split: str = "train") -> pd.DataFrame:
    return pd.read_parquet(tmp_path / "mydata" / "questions" / f"{split}.parquet")


def reasons(imported: Imported) -> dict[str, str]:
    return {each["row"]: each["reason"] for each in imported.rejected}


FOUR = [row(name) for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4")]


def test_a_folder_is_made_that_questions_are_loaded_from(tmp_path: Path, videos: Path, film: Path) -> None:
    rows = [
        row("a.mp4", "Where?", "B", category="Place", subtitles="Hello."),
        row("a.mp4", "When?", 0, category="Time", choices='["now", "then"]'),
        row("b", "Who?", "in town", category="place "),
        row("c.mp4", "Where?", "c", category=""),
        row("sub/e 5 é.mp4", "Where?", "A"),
    ]
    imported = run(tmp_path, rows, licence="CC-BY-4.0", name="Mine", group="camera")
    assert not imported.rejected and imported.found["videos_without_questions"] == 2
    root = tmp_path / "mydata"
    task = description.of_folder(root)
    assert (task.name, task.group, task.min_choices, task.max_choices) == ("Mine", "camera", 2, 3)
    assert task.categories == {"place": "Place", "time": "Time", "uncategorised": "uncategorised"}
    assert task.subtitles and not task.open_questions
    clips = {clip.url: clip for split in ("train", "test") for clip in questions.load(root, split)}
    assert set(clips) == {"a.mp4", "b", "c.mp4", "sub/e 5 é.mp4"}
    first, second = clips["a.mp4"].questions
    assert (first.choices, first.answer, first.category) == (("at home", "at sea", "in town"), 1, "Place")
    assert second.choices == ("now", "then") and clips["a.mp4"].subtitles == "Hello."
    assert clips["b"].questions[0].answer == 2 and clips["b"].questions[0].category == "Place"
    for clip in clips.values():
        path = root / "clips" / f"{clip.clip_id}.mp4"
        assert path.read_bytes() == film.read_bytes() and path.stat().st_ino == film.stat().st_ino
    assert data_card.read(root) == data_card.DataCard("Mine", licence="CC-BY-4.0", rows=imported_rows(imported))
    assert set(pd.read_parquet(root / "clips.parquet")["status"]) == {"ok"}
    # Again it is the same folder, whatever was there.
    before = {path.name: path.read_bytes() for path in root.rglob("*.parquet")}
    run(tmp_path, tmp_path / "mine.csv", licence="CC-BY-4.0", name="Mine", group="camera")
    assert {path.name: path.read_bytes() for path in root.rglob("*.parquet")} == before


def imported_rows(imported: Imported) -> dict[str, int]:
    return {split: numbers["questions"] for split, numbers in imported.found["splits"].items()}


def test_each_row_that_cannot_be_used_is_counted_with_its_name_and_value(tmp_path: Path, videos: Path) -> None:
    (videos / "empty.mp4").touch()
    (videos / "leaves.mp4").symlink_to("/etc/hostname")
    (tmp_path / "outside.mp4").write_bytes(b"x")
    os.mkfifo(videos / "waits.mp4")
    os.link(videos / "a.mp4", videos / "sub" / "a.mp4")
    (videos / "text.mp4").write_text("not a video")
    bad = {
        "answer 'in space' names none": row(answer="in space"),
        "video 'gone.mp4' does not exist": row("gone.mp4"),
        "video '../outside.mp4' is outside": row("../outside.mp4"),
        f"video '{tmp_path}/outside.mp4' is outside": row(f"{tmp_path}/outside.mp4"),
        "video 'leaves.mp4' is outside": row("leaves.mp4"),
        "video 'empty.mp4' is empty": row("empty.mp4"),
        "video 'waits.mp4' is not a regular file": row("waits.mp4"),
        "video 'sub' is a folder without images": row("sub"),
        "question 'Where?' of video 'd.mp4' was there before": row("d.mp4"),
        "lasts 10.0 s, and start is 60 s": row("b.mp4", "Cut?", start=60),
        "end is 3 s, not after start (4 s)": row("b.mp4", "Cut?", start=4, end=3),
        "video 'text.mp4' cannot be cut": row("text.mp4", start=1),
        "is none of train, validation, test": row("c.mp4", "Split?", split="exam"),
        "subtitles 'gone.srt' do not exist": row("c.mp4", "Said?", subtitles="gone.srt"),
    }
    imported = run(tmp_path, [*FOUR, *bad.values()])
    found = reasons(imported)
    assert list(found) == [f"mine.csv, row {number}" for number in range(5, 5 + len(bad))]
    for told, reason in zip(bad, found.values(), strict=True):
        assert told in reason, reason
    written = [json.loads(line) for line in (tmp_path / "mydata" / "rejected.jsonl").read_text().splitlines()]
    assert written == list(imported.rejected) and imported.found["rows_rejected"] == len(bad)
    assert len(list((tmp_path / "mydata" / "clips").iterdir())) == 4


def test_a_video_is_found_by_path_and_by_its_name_alone(tmp_path: Path, videos: Path) -> None:
    names = ["a", str(videos / "b.mp4"), "sub\\e 5 é.mp4", "e 5 é", "c.mp4", "sub/e 5 e\u0301.mp4"]
    imported = run(tmp_path, [row(name, f"Question {place}?") for place, name in enumerate(names)])
    assert not imported.rejected
    assert len(set(table(tmp_path)["clip_id"]) | set(table(tmp_path, "test")["clip_id"])) == 4


@pytest.mark.parametrize("options", [
    {"encoding": "utf-8-sig"}, {"delimiter": ";"}, {"delimiter": "\t"}, {"encoding": "utf-16"},
    {"lineterminator": "\n"}, {"lineterminator": "\r"}, {"quoting": csv.QUOTE_ALL},
])  # fmt: skip
def test_a_csv_is_read_as_other_programs_write_it(tmp_path: Path, videos: Path, options: dict[str, Any]) -> None:
    spoken = [row(name, 'She says "no, ""never""", and then?') for name in ("a.mp4", "b.mp4", "sub/e 5 é.mp4")]
    path = write_csv(tmp_path / "mine.csv", spoken, **options)
    assert not run(tmp_path, path).rejected
    assert table(tmp_path)["question"][0] == 'She says "no, ""never""", and then?'


def test_rows_of_another_encoding_cost_themselves(tmp_path: Path, videos: Path) -> None:
    path = write_csv(tmp_path / "mine.csv", FOUR)
    path.write_bytes(path.read_bytes() + "a.mp4,Où?,at home|at sea,A\r\n".encode("latin-1"))
    assert reasons(run(tmp_path, path)) == {
        "mine.csv, row 5": "question is not UTF-8, got 'O\\udcf9?': save the file as UTF-8"
    }


def test_json_lines_hold_lists_and_numbers(tmp_path: Path, videos: Path) -> None:
    rows = [{**each, "choices": ["x", "y"], "answer": 1, "start": 2, "end": 4.5} for each in FOUR]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows) + "{broken\n[1]\n")
    found = reasons(run(tmp_path, path))
    assert list(found) == ["mine.jsonl, row 5", "mine.jsonl, row 6"] and "is not JSON" in found["mine.jsonl, row 5"]
    assert set(table(tmp_path)["answer_text"]) == {"y"}


def test_parts_are_cut_and_stay_in_the_group_of_their_video(tmp_path: Path, videos: Path) -> None:
    cuts = [row("a.mp4", start=2, end=6), row("a.mp4", start="0:04", end=8), row("a.mp4", "When?", start=2, end=6)]
    imported = run(tmp_path, [*cuts, row("a.mp4", start=9, end=99), *FOUR[1:]])
    assert not imported.rejected
    together = [questions.load(tmp_path / "mydata", split) for split in ("train", "test")]
    (parts,) = [clips for split in together if len(clips := [clip for clip in split if clip.url == "a.mp4"])]
    assert [len(part.questions) for part in parts] == [2, 1, 1] and {part.group for part in parts} == {"a.mp4"}
    with Decoder(LIMITS) as decoder:
        shown = [decoder.read(tmp_path / "mydata" / "clips" / f"{part.clip_id}.mp4", UNIFORM) for part in parts]
        whole = [decoder.read(videos / "a.mp4", UNIFORM, part=part) for part in ((2, 6), (4, 8), (9, 10))]
    for part, expected in zip(shown, whole, strict=True):
        # Some frames more at the end, where one before it needs them.
        assert 0 <= part.duration_s - expected.duration_s < 0.7
        assert abs(numbers(part.frames)[0] - numbers(expected.frames)[0]) <= 1


def test_groups_are_never_split(tmp_path: Path, videos: Path) -> None:
    rows = [row(name, f"{n}?", group=group) for name, group in zip("abcdf", "XxYZZ", strict=True) for n in range(4)]
    imported = run(tmp_path, rows, test_fraction=0.4)
    train, test = (set(table(tmp_path, split)["group"]) for split in ("train", "test"))
    assert len(train) == 2 and len(test) == 1 and not train & test
    assert imported.found["splits"]["train"]["groups"] == 2
    assert description.of_folder(tmp_path / "mydata").group == "group"


def test_a_video_is_of_one_group(tmp_path: Path, videos: Path) -> None:
    rows = [row("a.mp4", f"{n}?", group="X") for n in range(2)] + [row("a.mp4", "3?", group="Y"), *FOUR[1:]]
    assert reasons(run(tmp_path, rows)) == {
        "mine.csv, row 3": "video 'a.mp4' is of the group 'X' in most rows, here of 'Y'"
    }


def test_given_splits_are_kept_and_a_group_in_two_of_them_stays_in_the_test(tmp_path: Path, videos: Path) -> None:
    train = write_csv(tmp_path / "one.csv", [*FOUR[:3], row("d.mp4", "Another?")])
    test = write_csv(tmp_path / "two.csv", [row("d.mp4"), row("f.mp4")])
    imported = run(tmp_path, f"train={train}|test={test}")
    assert reasons(imported) == {
        "one.csv, row 4": "group 'd.mp4' is in the test questions too, here in those for train"
    }
    assert list(table(tmp_path, "test")["url"]) == ["d.mp4", "f.mp4"] and len(table(tmp_path)) == 3
    assert imported.found["shared_questions"] == 1
    rows = [each | {"split": split} for each, split in zip(FOUR, ("train", "val", "training", "test"), strict=True)]
    run(tmp_path, rows)
    asked = {split: list(table(tmp_path, split)["url"]) for split in ("train", "validation", "test")}
    assert asked == {"train": ["a.mp4", "c.mp4"], "validation": ["b.mp4"], "test": ["d.mp4"]}
    # With these at hand one group is enough to train on; importing again leaves no file of before.
    run(tmp_path, [row("a.mp4"), row("b.mp4"), row("c.mp4", split="validation")], test_fraction=0.5)
    assert len(table(tmp_path)) == len(table(tmp_path, "validation")) == len(table(tmp_path, "test")) == 1
    run(tmp_path, FOUR)
    assert not (tmp_path / "mydata/questions/validation.parquet").exists()


def test_the_balance_and_the_sizes_are_reported(tmp_path: Path, videos: Path) -> None:
    imported = run(tmp_path, [row(name, answer=letter) for name, letter in zip("abcd", "ABBB", strict=True)])
    numbers = imported.found["splits"]
    assert sum(split["clips"] for split in numbers.values()) == 4 and numbers["test"]["questions"] == 1
    assert imported.lines[0].startswith("train: 3 questions about 3 clips, ")
    assert "right answers" in imported.lines[0]


def test_open_questions_stand_in_each_split_beside_those_with_options(tmp_path: Path, videos: Path) -> None:
    asked = [row(name, "What is that?", "A key.", choices="") for name in ("a.mp4", "b.mp4", "c.mp4")]
    imported = run(tmp_path, [*FOUR, *asked], test_fraction=0.5)
    assert not imported.rejected and imported.found["shared_questions"] == 2
    assert [split["open_questions"] > 0 for split in imported.found["splits"].values()] == [True, True]
    assert description.of_folder(tmp_path / "mydata").open_questions


def test_cuts_that_differ_by_a_frame_are_two_clips(tmp_path: Path, videos: Path) -> None:
    names = {library.clip_id("a.mp4", start_s, 4000.0) for start_s in (1234.567, 1234.568, 1234.5)}
    assert len(names) == 3


def test_many_categories_make_no_tables(tmp_path: Path, videos: Path) -> None:
    run(tmp_path, [row("a.mp4", f"{n}?", category=f"kind {n}") for n in range(200)] + FOUR[1:])
    assert description.of_folder(tmp_path / "mydata").categories == {}
    assert "kind 199" in set(table(tmp_path)["category"]) | set(table(tmp_path, "test")["category"])


def test_folders_of_images_are_clips(tmp_path: Path, videos: Path) -> None:
    (videos / "shots").mkdir()
    for number, picture in enumerate(numbered(3)):
        Image.fromarray(picture).save(videos / "shots" / f"{number}.png")
    parts = [row("shots", "Cut?", start=1), row("shots", "Late?", start=9), row("shots", "End?", start=1, end=2)]
    imported = run(tmp_path, [row("shots"), *parts, *FOUR])
    late = "video 'shots' ends at 3.0 s: nothing lies between 9 s and 3 s"
    assert list(reasons(imported).values()) == [late]
    folders = [path for path in (tmp_path / "mydata" / "clips").iterdir() if path.is_dir()]
    held = sorted(sorted(path.name for path in folder.iterdir()) for folder in folders)
    assert held == [["0.png", "1.png", "2.png"], ["1.png"], ["1.png", "2.png"]]


def test_links_are_fetched_and_those_that_are_not_are_told_of(tmp_path: Path, videos: Path) -> None:
    link, gone = "https://example.org/film.mp4", "https://youtu.be/AAAAAAAAAAA"

    def fetch(links: Sequence[Link]) -> Mapping[str, Path | str]:
        assert sorted(each.kind for each in links) == ["http", "youtube"]
        return {each.url: videos / "a.mp4" if each.kind == "http" else "is private." for each in links}

    path = write_csv(tmp_path / "mine.csv", [*FOUR, row(link), row(gone), row(link, "Part?", start=1, end=3)])
    imported = importer.run(params_of(tmp_path, path), fetch, 20.0, 1.0)
    assert list(reasons(imported)) == ["mine.csv, row 6"]
    assert reasons(imported)["mine.csv, row 6"].endswith("AAAAAAAAAAA' is private")
    assert len(list((tmp_path / "mydata" / "clips").iterdir())) == 6


def test_subtitles_may_be_a_file(tmp_path: Path, videos: Path) -> None:
    (videos / "a.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nHello.\n\n2\n00:00:08,000 --> 00:00:09,000\nBye.\n"
    )
    run(tmp_path, [row("a.mp4", subtitles="a.srt", start=5, end=10), *FOUR[1:]])
    rows = pd.concat([table(tmp_path), table(tmp_path, "test")]).set_index("url")
    assert rows.loc["a.mp4", "subtitles"] == "Bye."


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "has no rows"),
        ("video,question,choices,answer\n", "has no rows"),
        ("video,question,options,answer\na.mp4,Q,a|b,A\n", "lacks the column 'choices'"),
        ("video,question,choices,answer\na.mp4,Q,a|b,Z\n", "none of the 1 rows can be used: answer 'Z'"),
    ],
)
def test_the_whole_is_refused_where_nothing_is_left(tmp_path: Path, videos: Path, content: str, told: str) -> None:
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(InputError, match=told):
        run(tmp_path, tmp_path / "mine.csv")
    assert not (tmp_path / "mydata").exists() and not list(tmp_path.glob(".mydata*"))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("video,question,choices,answer,answer", "has the column 'answer' twice: leave one out"),
        ("video,Video,question,choices,answer", "has a column twice, written with other capitals"),
    ],
)
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, videos: Path, names: str, told: str) -> None:
    (tmp_path / "mine.csv").write_text(f"{names}\na.mp4,Where?,x|y,x,y\n")
    with pytest.raises(InputError, match=told):
        run(tmp_path, tmp_path / "mine.csv")


def test_a_number_of_thousands_of_digits_costs_its_row(tmp_path: Path, videos: Path) -> None:
    lines = [json.dumps(each) for each in FOUR]
    (tmp_path / "mine.jsonl").write_text("\n".join(['{"video": ' + "9" * 6000 + "}", *lines]))
    (reason,) = run(tmp_path, tmp_path / "mine.jsonl").rejected
    assert reason["row"] == "mine.jsonl, row 1" and "is not JSON" in reason["reason"]


def test_one_row_is_a_training_question(tmp_path: Path, videos: Path) -> None:
    imported = run(tmp_path, FOUR[:1])
    assert list(imported.found["splits"]) == ["train"] and len(table(tmp_path)) == 1


def test_a_folder_of_others_is_left_alone(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "mydata").mkdir()
    (tmp_path / "mydata" / "thesis.txt").write_text("mine")
    for values, told in (
        ({}, "holds what import has not put there"),
        ({"out": ""}, "import.out is empty"),
        ({"out": str(tmp_path / "mydata" / "thesis.txt")}, "is not a folder"),
        ({"videos": str(tmp_path / "none"), "out": str(tmp_path / "new")}, "is no folder"),
        ({"questions": str(tmp_path / "none.csv"), "out": str(tmp_path / "new")}, "is not a file"),
        ({"questions": "exam=x.csv", "out": str(tmp_path / "new")}, "names the split 'exam'"),
    ):
        with pytest.raises(InputError, match=told):
            run(tmp_path, values.pop("questions", write_csv(tmp_path / "mine.csv", FOUR)), **values)
    assert (tmp_path / "mydata" / "thesis.txt").read_text() == "mine"
