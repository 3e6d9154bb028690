"""One row of a question file: what names an answer, what options may be, and what is refused with its value."""

from __future__ import annotations

from typing import Any

import pytest

from cinetune.data.importing import records
from cinetune.data.importing.records import Record
from cinetune.errors import InputError

ROW = {"video": "a.mp4", "question": "Where is she?", "choices": "at home|at sea|in town", "answer": "at sea"}


def read(**values: Any) -> Record:
    return records.read(ROW | values, 0, "")


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("at sea", 1), (" at sea ", 1), ("AT SEA", 1), ("B", 1), ("b", 1), ("(C)", 2), ("C.", 2), ("0", 0), (2, 2),
        ("2.0", 2), (1.0, 1),
    ],
)  # fmt: skip
def test_an_answer_is_a_text_a_letter_or_an_index(answer: Any, index: int) -> None:
    assert read(answer=answer).answer == index


def test_the_text_of_an_option_comes_before_its_letter_and_its_index() -> None:
    assert read(choices=["B", "A"], answer="A").answer == 1
    assert read(choices="3|1|2", answer="1").answer == 1
    assert read(choices=[3, 1, 2.5], answer=2.5).choices == ("3", "1", "2.5")
    # Cells that stand beside empty ones are 2.0 for 2, of a table as of a CSV.
    assert {read(choices="3|2|1", answer=answer).answer for answer in (2, 2.0, "2.0", "2")} == {1}


def test_long_numbers_are_told_apart() -> None:
    assert (read(video=12345678.0).video, read(group=12345679.0).group) == ("12345678", "12345679")
    assert read(choices=[1234567.5, 1234568.5], answer="A").choices == ("1234567.5", "1234568.5")
    assert read(video=123456789012345678901).video == "123456789012345678901"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"answer": "in space"}, "answer 'in space' names none of the options"),
        ({"answer": "D"}, "answer 'D' is beyond the 3 options (A to C)"),
        ({"answer": 3}, "answer 3 is beyond the 3 options (0 to 2: an index counts from 0)"),
        ({"answer": -1}, "answer -1 is beyond"),
        ({"answer": True}, "answer True names none"),
        ({"answer": ""}, "answer is empty"),
        ({"answer": None}, "answer is empty"),
        ({"choices": "at home|at sea|at home"}, "choices must differ"),
        ({"choices": "at home|At Home"}, "choices must differ by more than case"),
        ({"choices": "at home", "answer": "A"}, "choices must be 2 to 10, got 1"),
        ({"choices": "|".join(map(str, range(11))), "answer": "A"}, "choices must be 2 to 10, got 11"),
        ({"choices": "at home||at sea"}, "texts that are not empty"),
        ({"choices": '["at home", "at'}, "must be a JSON list"),
        ({"choices": {"a": 1}}, "must be a list or texts"),
        ({"choices": ["a", None]}, "texts that are not empty, got None"),
        ({"question": " "}, "question must be text that is not empty"),
        ({"question": "caf\udce9?"}, "question is not UTF-8, got 'caf\\udce9?'"),
        ({"choices": "caf\udce9|b", "answer": "b"}, "choices is not UTF-8"),
        ({"video": None}, "video must be text"),
        ({"video": ["a"]}, "video must be text, got ['a']"),
        ({"answer": "9" * 400}, "names none"),
        ({"answer": 10**400}, "names none"),
        ({"answer": float("inf")}, "names none"),
        ({"choices": [1, float("nan")]}, "texts that are not empty, got nan"),
        ({"group": float("inf")}, "group must be text, got inf"),
        ({"start": "9" * 400 + ":00"}, "start must be seconds"),
        ({"end": "9" * 5000 + ":00:00"}, "end must be seconds"),
        ({"start": 10**400}, "start must be seconds"),
        ({"video": "a\0.mp4"}, "video holds a NUL"),
        ({"start": 5, "end": 5}, "end is 5 s, not after start (5 s)"),
        ({"start": "0:09", "end": "0:08"}, "end is 8 s, not after start (9 s)"),
        ({"start": "soon"}, "start must be seconds from 0 on, or a clock such as 1:02:03, got 'soon'"),
        ({"end": -2}, "end must be seconds from 0 on"),
        ({"start": "nan"}, "start must be seconds"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_value(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as error:
        read(**values)
    assert told in str(error.value)


def test_times_are_seconds_or_clocks() -> None:
    record = read(start="1:02.5", end="1:00:03")
    assert (record.start_s, record.end_s) == (62.5, 3603.0)
    assert read(start="2,5", end="").start_s == 2.5


def test_a_row_without_options_has_an_answer_in_words() -> None:
    record = read(choices="", answer="at sea")
    assert (record.choices, record.answer, record.words) == ((), -1, "at sea")


def test_a_row_to_be_answered_needs_no_answer() -> None:
    record = records.read(ROW | {"answer": None}, 0, "", is_answered=False)
    assert record.answer == -1 and record.choices == ("at home", "at sea", "in town")
