"""A task as data: what its file may say, and what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders.refusals import sentence
from cinetune.task import description
from cinetune.task.description import CINEPILE, Task

pytestmark = pytest.mark.data


def test_a_folder_without_a_description_is_cinepile(tmp_path: Path) -> None:
    assert description.of_folder(tmp_path) == CINEPILE == description.saved(None)
    assert (CINEPILE.letters, CINEPILE.group, CINEPILE.counted) == ("ABCDE", "film", "5")
    assert list(CINEPILE.titles) == ["crd", "npa", "sta", "temp", "th"]
    assert CINEPILE.titles["npa"] == "Narrative and Plot Analysis"


@pytest.mark.parametrize(
    "task",
    [
        Task(),
        Task(group="camera", min_choices=2, max_choices=4, categories={"who": "Wer?", "wo": "Où ça"}, subtitles=False),
        CINEPILE,
    ],
    ids=["nothing said", "own", "CinePile's"],
)
def test_a_task_comes_back_from_its_file_and_from_what_is_saved_with_results(tmp_path: Path, task: Task) -> None:
    description.write(tmp_path, task)
    assert description.of_folder(tmp_path) == task == description.saved(task.to_dict())


def test_a_file_may_be_empty_and_may_have_a_mark_of_its_encoding(tmp_path: Path) -> None:
    (tmp_path / description.FILE).write_text("")
    assert description.of_folder(tmp_path) == Task()
    (tmp_path / description.FILE).write_bytes("group: kamera\n".encode("utf-8-sig"))
    assert description.of_folder(tmp_path).groups == "kameras"


WRONG: list[tuple[str, str]] = [
    ("kind: camera", "kind is not known"),
    ("group: Camera 1", "group must be one word"),
    ("group: clip", "'clip'"),
    ("group: 7", "group must be text"),
    ("min_choices: 1", "from 2 to 10, got 1"),
    ("max_choices: 11", "from 2 to 10, got 11"),
    ("max_choices: four", "max_choices must be a whole number, got 'four'"),
    ("{min_choices: 5, max_choices: 3}", "above max_choices"),
    ("categories: [where, who]", "categories must be a mapping"),
    ("categories: {Where: Where}", "'Where'"),
    ("categories: {where: ''}", "has no name"),
    ("categories: {a: Where, b: Where}", "the same name"),
    (f"categories: {{{', '.join(f'c{n}: C{n}' for n in range(200))}}}", "at most 30"),
    ("subtitles: 1", "true or false"),
    ("columns: {question: q}", "does not map 'clip_id'"),
    ("columns: {quest: q}", "'quest'"),
    ("- a list", "no description"),
    ("group: [", "not YAML"),
]


@pytest.mark.parametrize(("text", "told"), WRONG, ids=[text[:30] for text, _ in WRONG])
def test_a_wrong_description_is_refused_in_one_sentence_with_its_file(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / description.FILE).write_text(text)
    said = sentence(lambda: description.of_folder(tmp_path))
    assert told in said and description.FILE in said


def test_a_description_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / description.FILE).write_bytes(b"group: caf\xe9")
    assert "UTF-8" in sentence(lambda: description.of_folder(tmp_path))


@pytest.mark.parametrize(
    ("group", "several"), [("film", "films"), ("series", "series"), ("city", "cities"), ("day", "days")]
)
def test_several_groups_have_a_word(group: str, several: str) -> None:
    assert Task(group=group).groups == several


@pytest.mark.parametrize(
    ("limits", "told"), [({}, "2 to 10"), ({"min_choices": 3, "max_choices": 3}, "3"), ({"max_choices": 4}, "2 to 4")]
)
def test_the_number_of_options_is_told_in_words(limits: dict[str, Any], told: str) -> None:
    assert Task(**limits).counted == told
