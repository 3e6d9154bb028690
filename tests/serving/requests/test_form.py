"""A request's body: what it may hold, and one sentence for each of what it may not."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from pydantic import ValidationError

from builders.refusals import sentence
from cinetune.errors import InputError
from cinetune.serving.requests import form
from cinetune.serving.requests.form import Options, Parameters

pytestmark = pytest.mark.serving

ROW = {"video": "clip:a", "question": "Who?"}
SECRET = "QUJD" * 100
DEFAULTS = Options(6, "lenient", 8)


def read(body: Any) -> tuple[list[dict[str, Any]], Parameters]:
    return form.read(body if isinstance(body, bytes) else json.dumps(body).encode())


def split(columns: Any, *data: Any, **more: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": columns, "data": list(data)} | more}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [ROW, ROW]},
        split(["question", "video"], ["Who?", "clip:a"], ["Who?", "clip:a"], index=[3, 4]),
        {"inputs": [ROW, ROW]},
        {"instances": [ROW, ROW], "params": None},
        {"inputs": {"video": ["clip:a"] * 2, "question": ["Who?"] * 2, "choices": None}},
        {"instances": {"video": ["clip:a"] * 2, "question": ["Who?"] * 2}, "dataframe_records": None},
    ],
)
def test_each_form_gives_the_same_rows(body: Any) -> None:
    assert read(body)[0] == [ROW, ROW]


def test_one_row_may_stand_alone() -> None:
    alone = ROW | {"choices": ["a", None, "c", "d", "e"]}
    assert read({"inputs": alone})[0] == [alone]


def test_values_are_not_changed() -> None:
    rows = [{"video": None, "question": 3, "choices": [1, None, ["x"], True, 2.5]}, {"question": {"a": 1}}]
    assert read({"dataframe_records": rows})[0] == rows


def test_parameters_that_are_null_or_left_out_are_the_versions() -> None:
    for values in ({}, {"max_new_tokens": None, "scorer": None, "frames": None}):
        assert read({"inputs": [ROW], "params": values})[1].options(DEFAULTS) == DEFAULTS
    given = {"max_new_tokens": 3, "scorer": "logit", "frames": 2}
    assert read({"inputs": [ROW], "params": given})[1].options(DEFAULTS) == Options(3, "logit", 2)


REFUSED = {
    "nothing": (b"", "not JSON"),
    "half": (b"{", "not JSON"),
    "UTF-16": (b"\xff\xfe\x00", "not JSON"),
    "deep": (b'{"inputs":' + b"[" * 100_000, "not JSON"),
    "a number of 5,000 digits": (b'{"inputs": ' + b"1" * 5000 + b"}", "not JSON"),
    "a number of 30 MB": (b'{"inputs": ' + b"1" * (30 << 20) + b"}", "not JSON"),
    "half a surrogate pair": (b'{"inputs": [{"question": "\\ud83d"}]}', "not JSON"),
    "a list": ([], "a JSON object"),
    "a text": ("x", "a JSON object"),
    "no form": ({}, "one of dataframe_records, dataframe_split, inputs, instances"),
    "two forms": ({"inputs": [ROW], "instances": [ROW]}, "one of dataframe_records"),
    "null": ({"inputs": None}, "one of dataframe_records"),
    "another key": ({"inputs": [ROW], "parameters": {}}, "key 'parameters' is not known"),
    "another key of a split": (split(["video"], ["a"], rows=1), "key 'rows' is not known: choose from columns"),
    "another parameter": ({"inputs": [ROW], "params": {"temp": 1}}, "parameter 'temp' is not known: choose from max_"),
    "parameters in a list": ({"inputs": [ROW], "params": [1]}, "params must be an object"),
    "a parameter as text": ({"inputs": [ROW], "params": {"frames": "2"}}, "params.frames must be a whole number"),
    "a parameter with a point": ({"inputs": [ROW], "params": {"frames": 2.5}}, "params.frames must be a whole number"),
    "a switch": ({"inputs": [ROW], "params": {"frames": True}}, "params.frames must be a whole number"),
    "a scorer that is none": ({"inputs": [ROW], "params": {"scorer": 3}}, "params.scorer must be text"),
    "rows as an object": ({"dataframe_records": ROW}, "dataframe_records must be a list"),
    "rows as texts": ({"dataframe_records": [SECRET]}, "dataframe_records.0 must be an object"),
    "inputs as texts": ({"inputs": [SECRET]}, "rows must be objects"),
    "inputs as lists": ({"instances": [[1, 2]]}, "rows must be objects"),
    "inputs as a text": ({"inputs": SECRET}, "rows must be objects"),
    "no rows": ({"dataframe_records": []}, "no rows"),
    "no rows by column": ({"inputs": {"video": [], "question": []}}, "no rows"),
    "257 rows": ({"dataframe_records": [ROW] * 257}, "256 rows, got 257"),
    "257 rows of a split": (split(["video"], *[["a"]] * 257), "256 rows, got 257"),
    "257 inputs": ({"inputs": [ROW] * 257}, "256 rows, got 257"),
    "no images": ({"inputs": [{"images": None, "question": "Who?", "x": 1}]}, "column 'x' is not known"),
    "no video": ({"inputs": [{"question": "Who?"}]}, "lack the column 'video'"),
    "another column": ({"inputs": [ROW | {"subtitle": SECRET}]}, "column 'subtitle' is not known"),
    "another column of a split": (split(["video", "question", "x"], ["a", "b", SECRET]), "column 'x' is not known"),
    "a column twice": (split(["video", "question", "video"], [SECRET, "b", "c"]), "names a column twice"),
    "65 columns": (split([str(number) for number in range(65)]), "columns may hold 64 values, got 65"),
    "a column that is no text": (split(["video", 3], ["a", "b"]), "dataframe_split.columns.1 must be text"),
    "a short row": (split(["video", "question"], [SECRET]), "row 0 of dataframe_split.data has 1 values for 2 columns"),
    "a row that is no list": (split(["video", "question"], SECRET), "dataframe_split.data.0 must be a list"),
    "a split without columns": ({"dataframe_split": {"data": []}}, "dataframe_split.columns is missing"),
    "a split as a list": ({"dataframe_split": [SECRET]}, "dataframe_split must be an object"),
    "columns of two lengths": ({"inputs": {"video": [SECRET], "question": ["a", "b"]}}, "lists of one length"),
    "a column that is no list": (
        {"inputs": {"video": [SECRET], "question": ["a"], "subtitles": "x"}},
        "lists of one length",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_read_is_one_sentence_without_its_values(name: str) -> None:
    body, words = REFUSED[name]
    said = sentence(lambda: read(body))
    assert words in said and said.endswith(".") and "\n" not in said and len(said) < 300
    assert SECRET[:20] not in said and "pydantic" not in said and "Input" not in said


MANY = {str(number): 1 for number in range(1000)}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"inputs": [ROW]} | MANY, "key"),
        ({"inputs": [ROW], "params": MANY}, "parameter"),
        ({"dataframe_split": {"columns": [], "data": []} | MANY}, "key"),
    ],
)
def test_of_many_unknown_keys_the_first_alone_is_an_error(body: Any, kind: str) -> None:
    with pytest.raises(InputError, match=f"^{kind} '0' is not known: choose from ") as raised:
        read(body)
    assert isinstance(raised.value.__context__, ValidationError) and raised.value.__context__.error_count() == 1


def test_a_byte_order_mark_is_read_over() -> None:
    assert read(b"\xef\xbb\xbf" + json.dumps({"inputs": [ROW]}).encode())[0] == [ROW]


@pytest.mark.parametrize("value", [0, -1, 257, 10**4200])
def test_a_parameter_out_of_range_is_told_however_long_it_is(value: int) -> None:
    given = Parameters(max_new_tokens=value)
    assert "max_new_tokens must be between 1 and 256" in sentence(lambda: given.options(DEFAULTS))


@pytest.mark.parametrize("end", ["\N{GRINNING FACE}", "\\ud83d\\ude00", "\u00e9"])
def test_a_long_text_that_would_grow_is_refused_before_it_does(end: str) -> None:
    text = "A" * (8 << 20) + end
    for name, more in (("video", '"question": "x"'), ("question", '"video": "x"')):
        body = f'{{"inputs": [{{{more}, "{name}": "{text}"}}]}}'.encode()
        tracemalloc.start()
        assert "more than 4 MB must be base64" in sentence(lambda body=body: read(body))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        tracemalloc.stop()
    short = [ROW | {"question": "A" * (3 << 20) + "\u00e9"}] * 4
    assert read({"inputs": short})[0] == short
    rows = [ROW | {"question": f"Who is \u00e9 and {end}?", "video": "A" * (8 << 20)}]
    assert read({"inputs": rows})[0] == rows


@pytest.mark.parametrize("item", ["[]", "{}", '{"":0}', '""', "0", '{"a":[]}', '{"video":"","question":""}'])
def test_small_things_in_great_number_are_refused_before_they_fill_the_memory(item: str) -> None:
    body = ('{"inputs": [' + ",".join([item] * (4_000_000 // len(item))) + "]}").encode()
    tracemalloc.start()
    said = sentence(lambda: read(body))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said.endswith(".") and peak < 100 << 20
