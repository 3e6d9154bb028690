"""The registered model outside the server: every form that MLflow takes, in a notebook and in its own commands."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc import scoring_server

from cinetune import provenance
from cinetune.serving.pyfunc import ClipModel

pytestmark = pytest.mark.serving

CHOICES = ["on the beach", "in the city", "at the castle", "on the farm", "in the desert"]
HOLED = ["on the beach", None, "at the castle", "on the farm", "in the desert"]


def row(**values: Any) -> dict[str, Any]:
    return {"video": "clip:clip0", "question": "Where are they?", "choices": CHOICES, "subtitles": "Look."} | values


def records(answers: pd.DataFrame) -> list[dict[str, Any]]:
    return answers.to_dict("records")


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [item[name] for item in rows] for name in rows[0]}


def invoke(model: Any, body: Any, content_type: str = "application/json") -> list[dict[str, Any]]:
    """As MLflow's own server does it."""
    content = json.dumps(body) if content_type == "application/json" else body
    done = scoring_server.invocations(content, content_type, model, model.metadata.get_input_schema())
    assert done.status == 200, done.response
    return json.loads(done.response)["predictions"]


FORMS = {
    "dataframe_records": lambda rows: {"dataframe_records": rows},
    "dataframe_split": lambda rows: {
        "dataframe_split": {"columns": list(rows[0]), "data": [list(item.values()) for item in rows]}
    },
    "inputs": lambda rows: {"inputs": rows},
    "inputs by column": lambda rows: {"inputs": columns(rows)},
}


@pytest.mark.parametrize("form", list(FORMS))
def test_a_null_is_never_the_word_none_and_costs_its_row_alone(served: Any, form: str) -> None:
    rows = [row(), row(choices=HOLED), row(choices=None), row(question=None), row(subtitles=None), row(video=None)]
    whole, holed, opened, unasked, silent, unseen = invoke(served, FORMS[form](rows))
    assert whole["choice"] and opened["answer"] and silent["choice"] and not (opened["error"] or silent["error"])
    assert holed["error"] == "a choice must be text, got null."
    assert unasked["error"] == "question must be text, got null."
    assert unseen["error"] == "video must be text that is not empty, got null."
    assert silent["raw"] == records(served.predict([row(subtitles="")]))[0]["raw"]
    (alone,) = invoke(served, FORMS[form]([row(choices=HOLED)]))
    assert alone["error"] == holed["error"]


def test_a_null_among_instances_is_not_the_word_none_either(served: Any) -> None:
    """NumPy joins their columns before the model sees them, so that all choices must be lists of one length."""
    rows = [row(), row(choices=HOLED), row(question=None), row(subtitles=None)]
    whole, holed, unasked, silent = invoke(served, {"instances": rows})
    assert whole["choice"] and silent["choice"]
    assert holed["error"] == "a choice must be text, got null."
    assert unasked["error"] == "question must be text, got null."
    assert invoke(served, {"instances": [row()]})[0]["choice"]


def test_a_table_in_parquet_is_answered_alike(served: Any, tmp_path: Path) -> None:
    pd.DataFrame([row(), row(choices=HOLED)]).to_parquet(tmp_path / "rows.parquet")
    done = scoring_server.invocations(
        (tmp_path / "rows.parquet").read_bytes(),
        "application/vnd.apache.parquet",
        served,
        served.metadata.get_input_schema(),
    )
    whole, holed = json.loads(done.response)["predictions"]
    assert whole["choice"] and holed["error"] == "a choice must be text, got null."


def test_values_of_other_types_are_named_and_not_read_as_text(served: Any) -> None:
    wrong = {
        "choices": ("on the beach", [1, 2, 3, 4, 5], [*CHOICES[:4], 5], [CHOICES] * 5, {"a": 1}, 7, CHOICES[:4]),
        "question": (3, True, ["Who?"], {}, "\ud83d", " "),
        "subtitles": (3, ["a"], "\ud83d"),
        "video": (3, True, [], {}),
    }
    rows = [row(**{name: value}) for name, values in wrong.items() for value in values]
    found = records(served.predict([row(), *rows, row()]))
    assert found[0]["error"] is None and found[-1]["error"] is None
    for item, answer in zip(rows, found[1:-1], strict=True):
        assert answer["error"] and answer["choice"] is None, item


def test_all_forms_of_one_table_have_its_answers(served: Any) -> None:
    rows = [row(), row(video="clip:clip1", question="Who is it?")]
    expected = records(served.predict(pd.DataFrame(rows)))
    assert records(served.predict(rows)) == expected
    assert records(served.predict(columns(rows))) == expected
    assert records(served.predict({name: np.array(values) for name, values in columns(rows).items()})) == expected
    assert records(served.predict(rows[0])) == expected[:1]
    without = [{"video": "clip:clip0", "question": name} for name in ("Who?", "Where?", "Why?")]
    assert records(served.predict(columns(without))) == records(served.predict(without))


def test_what_python_holds_is_taken_as_it_is(served_folder: Any, served: Any) -> None:
    content = (served_folder[0] / "data/clips/clip0.mp4").read_bytes()
    text = base64.b64encode(content).decode()
    same = [
        row(),
        row(video=content),
        row(video=bytearray(content)),
        row(video=f"data:video/mp4;base64,{text}"),
        row(video=base64.encodebytes(content).decode()),
        row(choices=tuple(CHOICES)),
        row(choices=np.array(CHOICES)),
    ]
    first, *others = records(served.predict(same))
    assert first["choice"]
    for other in others:
        assert other | {"confidence": None} == first | {"confidence": None}
    (wrong,) = records(served.predict([row(video=b"no video")]))
    assert wrong["error"] and "b'" not in wrong["error"]


def test_a_table_keeps_its_index_and_nulls_stay_nulls(served: Any) -> None:
    table = pd.DataFrame([row(), row(choices=None)], index=["a", "b"])
    answers = served.predict(table)
    assert list(answers.index) == ["a", "b"] and set(answers.dtypes) == {np.dtype(object)}
    assert answers.loc["b", "choice"] is None and answers.loc["a", "error"] is None


def test_mlflows_evaluation_takes_it(served: Any, logged: Any) -> None:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(logged.store)
    try:
        table = pd.DataFrame([row(), row(question="Who is it?")])
        table["truth"] = ["on the beach", "in the city"]
        exact = mlflow.models.make_metric(
            eval_fn=lambda predictions, targets, metrics: float((predictions == targets).mean()),
            greater_is_better=True,
            name="exact",
        )
        with mlflow.start_run(experiment_id=mlflow.get_experiment_by_name("serving").experiment_id):
            found = mlflow.models.evaluate(
                served, table, targets="truth", predictions="answer", extra_metrics=[exact], evaluators="default"
            )
    finally:
        mlflow.set_tracking_uri(before)
    assert 0.0 <= found.metrics["exact"] <= 1.0


def test_a_version_of_other_code_is_told_at_load(
    served: Any, logged: Any, served_folder: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = json.loads((logged.folder / "artifacts/serving.json").read_text())
    assert config["source_digest"] == provenance.source_digest(package=logged.folder / "code/cinetune")
    assert served.metadata.metadata["source_digest"] == config["source_digest"]
    context = type("Context", (), {"artifacts": {"adapter": logged.folder / "artifacts/adapter"}})()
    monkeypatch.chdir(served_folder[0])
    for digest, is_told in ((config["source_digest"], False), ("another", True)):
        path = served_folder[0] / f"{digest}.json"
        path.write_text(json.dumps(config | {"source_digest": digest}))
        context.artifacts["config"] = path
        caplog.clear()
        model = ClipModel()
        with caplog.at_level(logging.WARNING, logger="cinetune"):
            model.load_context(context)
        model.service.close()
        assert any("registered with other code" in record.message for record in caplog.records) is is_told
