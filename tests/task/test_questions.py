"""CinePile's rows: what cannot be used is named, what can be used keeps its order and its film."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from builders.refusals import sentence
from cinetune.task import columns, groups, questions
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.data

CHOICES = ["the key", "the rope", "the lamp", "the map", "the ring"]
GOOD = {
    "movie_name": "Robin Hood",
    "year": 1991,
    "genre": ["Adventure"],
    "yt_clip_title": "Robin Hood (1991) - Scene 1",
    "yt_clip_link": "https://youtube.com/watch?v=-abcdefghij",
    "movie_scene": "He hides the lamp.",
    "subtitles": "<subtitle> Give me the lamp.",
    "question": "What does he want?",
    "choices": CHOICES,
    "answer_key": "the lamp",
    "answer_key_position": 2,
    "question_category": "Narrative and\nPlot Analysis",
    "hard_split": "False",
    "visual_reliance": "0",
    "clip_id": "-abcdefghij",
}


def row(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    """Each value as it is: pandas would turn None into NaN, and True in a column of numbers into 1."""
    return pd.DataFrame({name: pd.Series([given[name] for given in rows], dtype=object) for name in rows[0]})


def array(values: list[str]) -> np.ndarray:
    """A list as it comes out of a Parquet file."""
    return np.array(values, dtype=object)


def clips_of(*rows: dict[str, Any]) -> list[questions.ClipQuestions]:
    return questions.clips_of(table(*rows), "given.parquet")


UNUSABLE = [
    ("question", None),
    ("question", float("nan")),
    ("question", ""),
    ("question", " \n"),
    ("question", 7),
    ("clip_id", ""),
    ("clip_id", None),
    ("movie_name", float("nan")),
    ("movie_name", " "),
    ("year", None),
    ("year", float("nan")),
    ("year", float("inf")),
    ("year", "1991"),
    ("year", True),
    ("subtitles", None),
    ("subtitles", float("nan")),
    ("subtitles", b"caf\xe9"),
    ("choices", None),
    ("choices", float("nan")),
    ("choices", "the key, the rope, the lamp, the map, the ring"),
    ("choices", "abcde"),
    ("choices", {"the lamp": 1}),
    ("answer_key_position", -1),
    ("answer_key_position", 5),
    ("answer_key_position", float("nan")),
    ("answer_key_position", float("inf")),
    ("answer_key_position", None),
    ("answer_key_position", "2"),
    ("answer_key_position", 2.5),
    ("answer_key_position", True),
    ("answer_key_position", [2]),
    ("answer_key", "the key"),
    ("answer_key", "the lamp "),
    ("answer_key", "C"),
    ("answer_key", None),
    ("question_category", "Plot"),
    ("question_category", "Narrative and Plot Analysis"),
    ("question_category", None),
    ("question_category", ["Temporal"]),
]


@pytest.mark.parametrize(("column", "value"), UNUSABLE, ids=lambda value: repr(value)[:24])
def test_a_value_that_cannot_be_used_is_named_with_its_row(column: str, value: Any) -> None:
    message = sentence(lambda: clips_of(GOOD, row(**{column: value})))
    assert column in message and repr(value) in message
    assert "given.parquet, row 1" in message and "repair" in message


@pytest.mark.parametrize("values", [array(CHOICES), array(["Temporal"])], ids=["of five", "of one"])
@pytest.mark.parametrize("column", ["question", "subtitles", "answer_key", "answer_key_position", "question_category"])
def test_a_list_where_one_value_belongs_is_named(column: str, values: np.ndarray) -> None:
    """A list column arrives as an array, which Python can neither compare nor look up."""
    assert column in sentence(lambda: clips_of(row(**{column: values})))


@pytest.mark.parametrize("count", [0, 1, 4, 6, 27])
@pytest.mark.parametrize("kind", [list, array])
def test_five_choices_are_needed(count: int, kind: Callable[[list[str]], Any]) -> None:
    choices = [f"option {number}" for number in range(count)]
    message = sentence(lambda: clips_of(row(choices=kind(choices))))
    assert f"choices must be 5, got {count}" in message and repr(choices) in message


@pytest.mark.parametrize("bad", [None, float("nan"), "", " ", 3, ["the rope"]], ids=repr)
def test_a_choice_that_is_no_text_is_named(bad: Any) -> None:
    message = sentence(lambda: clips_of(row(choices=["the key", bad, *CHOICES[2:]])))
    assert "choices" in message and repr(bad) in message


@pytest.mark.parametrize("twin", ["the key", " the key", "the key\n"])
def test_two_equal_choices_are_refused_whatever_is_around_them(twin: str) -> None:
    message = sentence(lambda: clips_of(row(choices=["the key", twin, *CHOICES[2:]])))
    assert "differ" in message and repr(twin) in message


@pytest.mark.parametrize("column", [*CINEPILE.columns.values()])
def test_a_missing_column_is_named(column: str) -> None:
    message = sentence(lambda: questions.clips_of(table(GOOD).drop(columns=column), "given.parquet"))
    assert repr(column) in message and "given.parquet" in message


def test_columns_that_cinepile_does_not_have_are_passed_over() -> None:
    """The dataset's second version has one more, and a user's own table may have any."""
    assert clips_of(row(videoID="-abcdefghij", note=None)) == clips_of(GOOD)


def test_no_rows_are_refused() -> None:
    message = sentence(lambda: questions.clips_of(table(GOOD).iloc[:0], "given.parquet"))
    assert "given.parquet has no rows" in message


def test_one_row_is_one_clip_with_one_question() -> None:
    (clip,) = clips_of(GOOD)
    assert (clip.clip_id, clip.group, clip.subtitles) == ("-abcdefghij", "Robin Hood (1991)", GOOD["subtitles"])
    (question,) = clip.questions
    assert (question.text, question.choices, question.answer) == ("What does he want?", tuple(CHOICES), 2)
    assert question.category == "Narrative and\nPlot Analysis"
    assert (question.hard_split, question.visual_reliance) == ("False", "0")


def test_whole_numbers_that_became_floats_are_the_same_numbers() -> None:
    """One null in a column of whole numbers turns the whole column into floats."""
    assert clips_of(row(answer_key_position=2.0, year=1991.0)) == clips_of(GOOD)


@pytest.mark.parametrize("subtitles", ["", "مرحبا", "<video> USER: \x00", "word " * 200_000], ids=lambda text: text[:9])
def test_subtitles_may_hold_anything(subtitles: str) -> None:
    (clip,) = clips_of(row(subtitles=subtitles))
    assert clip.subtitles == subtitles


def test_links_are_not_looked_at_so_a_bad_one_stops_nobody() -> None:
    """The clip's id is its own column; links are the business of whoever downloads."""
    for link in ("", None, "https://youtube.com/playlist?list=x", "https://youtu.be/-abcdefghij?t=9", "no link"):
        (clip,) = clips_of(row(yt_clip_link=link))
        assert clip.url == (link or "")
        assert [dataclasses.replace(clip, url=GOOD["yt_clip_link"])] == clips_of(GOOD)


@pytest.mark.parametrize(
    ("genre", "genres"), [(["Drama", "Crime"], ("Drama", "Crime")), ("Drama", ("Drama",)), (None, ()), ([None, ""], ())]
)
def test_a_genre_that_is_not_as_it_should_be_is_left_out(genre: object, genres: tuple[str, ...]) -> None:
    (clip,) = clips_of(row(genre=genre))
    assert clip.genres == genres and clip.year == 1991


def test_clips_and_their_questions_keep_the_order_of_the_rows() -> None:
    asked = [("b", "first"), ("a", "second"), ("b", "third"), ("c", "fourth"), ("a", "fifth")]
    clips = clips_of(*(row(clip_id=clip_id, question=text) for clip_id, text in asked))
    assert [(clip.clip_id, [question.text for question in clip.questions]) for clip in clips] == [
        ("b", ["first", "third"]),
        ("a", ["second", "fifth"]),
        ("c", ["fourth"]),
    ]


def test_every_question_has_an_id_of_its_own_and_duplicates_are_not_lost() -> None:
    clips = clips_of(GOOD, GOOD, row(clip_id="other"), GOOD)
    ids = [question.question_id for clip in clips for question in clip.questions]
    assert len(set(ids)) == 4


def test_a_clip_of_two_films_is_refused() -> None:
    said = sentence(lambda: clips_of(row(year=1991), row(year=2010)))
    assert "(1991)" in said and "(2010)" in said


def test_one_name_in_two_years_is_two_films() -> None:
    clips = clips_of(row(clip_id="a", year=1991), row(clip_id="b", year=2010), row(clip_id="c", year=2010))
    assert [clip.group for clip in clips] == ["Robin Hood (1991)", "Robin Hood (2010)", "Robin Hood (2010)"]
    first, second = groups.split_groups(clips, 0.5, seed=0)
    assert {len(first), len(second)} == {1, 2}


def test_a_file_gives_the_clips_of_its_rows(tmp_path: Path) -> None:
    (tmp_path / "questions").mkdir()
    rows = [row(clip_id="b"), row(clip_id="a")]
    pd.DataFrame(rows).to_parquet(tmp_path / "questions" / "test.parquet")
    assert questions.load(tmp_path, "test") == clips_of(*rows)


def test_columns_that_nobody_uses_are_not_read(tmp_path: Path) -> None:
    """The scene is longer than all else together."""
    (tmp_path / "questions").mkdir()
    rows = [row(clip_id=f"clip{number % 3}") for number in range(7)]
    pd.DataFrame(rows).assign(movie_scene=7, yt_clip_title=None, more=1.5).to_parquet(
        tmp_path / "questions/train.parquet"
    )
    assert questions.load(tmp_path, "train") == clips_of(*rows)


def test_the_ids_of_clips_are_read_without_their_questions(tmp_path: Path) -> None:
    (tmp_path / "questions").mkdir()
    rows = [row(clip_id=f"clip{number % 3}", question=None) for number in (2, 0, 2, 1)]
    pd.DataFrame(rows).to_parquet(tmp_path / "questions/train.parquet")
    assert questions.clip_ids_of(tmp_path, "train") == ["clip2", "clip0", "clip1"]
    assert "test.parquet does not exist" in sentence(lambda: questions.clip_ids_of(tmp_path, "test"))


def test_a_large_file_is_read_in_parts_and_lists_keep_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "BATCH_ROWS", 3)
    (tmp_path / "questions").mkdir()
    path = tmp_path / "questions" / "train.parquet"
    rows = [row(clip_id=f"clip{number}", question=f"Which {number}?") for number in range(8)]
    rows = [{**item, "genre": ["Drama"] * (number % 3)} for number, item in enumerate(rows)]
    pd.DataFrame(rows).to_parquet(path)
    assert questions.load(tmp_path, "train") == clips_of(*rows)
    pd.DataFrame([*rows, row(choices=None), GOOD]).to_parquet(path)
    assert f"{path}, row 8: choices must be a list" in sentence(lambda: questions.load(tmp_path, "train"))


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"clip_id,question\n", b"PAR1" + bytes(1000) + b"PAR1"])
def test_a_file_that_is_missing_or_no_parquet_is_named_with_the_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "questions" / "train.parquet"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    message = sentence(lambda: questions.load(tmp_path, "train"))
    assert str(path) in message and "dvc pull" in message


def test_a_bad_row_of_a_file_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "questions").mkdir()
    path = tmp_path / "questions" / "train.parquet"
    pd.DataFrame([GOOD, GOOD, row(answer_key_position=4)]).to_parquet(path)
    assert f"{path}, row 2: answer_key must be option 4" in sentence(lambda: questions.load(tmp_path, "train"))


def many_clips(films: int, clips_per_film: int = 3) -> list[questions.ClipQuestions]:
    return clips_of(
        *(
            row(clip_id=f"{film}-{clip}", movie_name=f"Film {film % (films // 2 + 1)}", year=1990 + film)
            for clip in range(clips_per_film)
            for film in range(films)
        )
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_film_is_wholly_on_one_side_and_no_clip_is_lost(seed: int) -> None:
    clips = many_clips(films=20)
    train, validation = groups.split_groups(clips, 0.25, seed)
    assert not {clip.group for clip in train} & {clip.group for clip in validation}
    assert len({clip.group for clip in validation}) == 5
    assert sorted(clip.clip_id for clip in [*train, *validation]) == sorted(clip.clip_id for clip in clips)


def test_each_side_keeps_the_order_of_the_clips() -> None:
    clips = many_clips(films=6)
    for side in groups.split_groups(clips, 0.5, seed=1):
        assert side == [clip for clip in clips if clip in side]


def test_a_seed_gives_one_split_and_other_seeds_give_others() -> None:
    clips = many_clips(films=20)
    assert groups.split_groups(clips, 0.25, seed=3) == groups.split_groups(clips, 0.25, seed=3)
    held_out = {frozenset(clip.group for clip in groups.split_groups(clips, 0.25, seed)[1]) for seed in range(8)}
    assert len(held_out) > 4


def test_the_split_does_not_depend_on_the_order_of_the_rows() -> None:
    clips = many_clips(films=20)
    held_out = [{clip.group for clip in groups.split_groups(given, 0.25, 3)[1]} for given in (clips, clips[::-1])]
    assert held_out[0] == held_out[1]


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("films", [2, 3, 10])
def test_each_side_has_at_least_one_film(films: int, fraction: float) -> None:
    train, validation = groups.split_groups(many_clips(films), fraction, seed=0)
    assert train and validation


def test_one_film_cannot_be_split() -> None:
    assert "1 film" in sentence(lambda: groups.split_groups(clips_of(GOOD), 0.5, 0, "film"))


SPELLINGS = ["Café  Noir", "CAFÉ NOIR", "Cafe\u0301 Noir ", "Ｃafé noir", " café\u00a0noir"]


def test_a_film_is_one_however_it_is_written() -> None:
    spelled = [row(clip_id=f"{n}", movie_name=name) for n, name in enumerate(SPELLINGS)]
    clips = clips_of(*spelled, row(clip_id="other", movie_name="Cafe Noir"), row(clip_id="later", year=2010))
    assert len({clip.group for clip in clips}) == 3
    assert {clip.group for clip in clips_of(*spelled[::-1])} == {clips[0].group}
    for seed in range(5):
        sides = groups.split_groups(clips, 0.3, seed)
        assert not {clip.clip_id for clip in sides[0][:1]} & {clip.clip_id for clip in sides[1]}
        assert any({str(n) for n in range(len(SPELLINGS))} <= {clip.clip_id for clip in side} for side in sides)
    # Also where each clip is told in its own way.
    told = [dataclasses.replace(clip, group=f"{name} (1991)") for clip, name in zip(clips[:5], SPELLINGS, strict=True)]
    for seed in range(5):
        assert min(map(len, groups.split_groups([*told, *clips[5:]], 0.3, seed))) in (1, 2)


def test_one_clip_may_have_its_film_written_in_two_ways() -> None:
    (clip,) = clips_of(row(movie_name="Robin Hood"), row(movie_name="robin hood "))
    assert len(clip.questions) == 2


def test_films_that_stand_in_both_splits_are_named_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "questions").mkdir()
    table(row(), row(year=None, clip_id="b"), row(movie_name="Once", clip_id="c")).to_parquet(
        tmp_path / "questions/train.parquet"
    )
    films = ["ROBIN HOOD  (1991)", "Robin Hood (2010)", "Twice (1991)"]
    assert groups.shared_groups(films, "test", tmp_path, "train") == ["ROBIN HOOD  (1991)"]
    assert "Films in test and train questions alike: 1 ('ROBIN HOOD  (1991)')." in caplog.text
    caplog.clear()
    assert groups.shared_groups(films[1:], "test", tmp_path, "train") == []
    assert groups.shared_groups(films, "train", tmp_path, "test") == []
    assert not caplog.text
