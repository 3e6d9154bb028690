"""What was seen and said is a trace, with the frames where they may be; what people say of it becomes a question."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.entities import AssessmentSource
from PIL import Image

from builders.clips import write_clip
from builders.projects import ROOT
from builders.refusals import sentence
from cinetune import params as params_module
from cinetune.runtime import observation
from cinetune.runtime.observation import Observation, Span
from cinetune.task import questions
from cinetune.task.checks import check_row, named
from cinetune.task.description import CINEPILE
from cinetune.tracking import lifecycle
from cinetune.tracking.traces import writing
from cinetune.tracking.traces.corrections import corrections

pytestmark = pytest.mark.experience

CHOICES = ("the key", "the rope", "the lamp", "the map", "the ring")
TAGS = {"version": "models:/m/3", "adapter_digest": "abc"}
HUMAN = AssessmentSource(source_type="HUMAN", source_id="someone")
START = 1_700_000_000_000_000_000


def seen(**changes: Any) -> Observation:
    values: dict[str, Any] = {
        "question": "What does Ana hold?",
        "choices": CHOICES,
        "subtitles": "<subtitle> Look at it.",
        "frames": np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3),
        "answer": {"answer": "the rope", "choice": "B", "confidence": 0.6, "raw": "B", "error": None},
        "probabilities": (0.1, 0.6, 0.1, 0.1, 0.1),
        "spans": (
            Span(observation.DECODING, START, START + 5_000_000),
            Span(observation.READING, START + 6_000_000, START + 9_000_000),
        ),
        "about": {"clip_id": "mini0001_00", "group": "Film", "year": 1999},
    }
    return Observation(**(values | changes))


def read(trace_id: str) -> tuple[Any, Any, list[Any]]:
    """A trace, its root span and the others."""
    trace = mlflow.MlflowClient().get_trace(trace_id)
    root = next(span for span in trace.data.spans if span.parent_id is None)
    return trace, root, [span for span in trace.data.spans if span is not root]


def images(trace: Any, root: Any) -> list[np.ndarray]:
    """The frames, as they lie beside the trace."""
    from mlflow.tracing.attachments import Attachment

    content = root.inputs["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    names = [Attachment.parse_ref(url)["attachment_id"] for url in urls]
    place = trace.info.tags["mlflow.artifactLocation"]
    files = [mlflow.artifacts.download_artifacts(artifact_uri=f"{place}/attachments/{name}") for name in names]
    return [np.asarray(Image.open(file)) for file in files]


def test_a_trace_shows_what_was_seen_and_said_and_how_long_it_took(store: mlflow.MlflowClient) -> None:
    trace, root, steps = read(writing.write(seen(), TAGS, has_content=True))
    assert {name: trace.info.tags[name] for name in TAGS} == TAGS
    assert [(step.name, step.end_time_ns - step.start_time_ns) for step in steps] == [
        ("decoding", 5_000_000), ("reading", 3_000_000),
    ]  # fmt: skip
    assert (root.start_time_ns, root.end_time_ns) == (START, START + 9_000_000)
    assert root.attributes["probabilities"]["B"] == 0.6 and root.attributes["choice"] == "B"
    assert root.outputs["choices"][0]["message"]["content"] == "B"
    assert np.array_equal(np.stack(images(trace, root)), seen().frames)


def test_without_content_nothing_of_the_film_is_written(store: mlflow.MlflowClient) -> None:
    trace, root, _ = read(writing.write(seen(), TAGS, has_content=False))
    written = str(trace.to_dict())
    assert "Look at it" not in written and "mlflow-attachment" not in written
    assert root.attributes["row"]["question"] == "What does Ana hold?"


def test_content_leaves_this_machine_only_where_it_may(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert writing.shows_content("auto", "CinePile v2") and not writing.shows_content("never", "CinePile-mini")
    monkeypatch.setattr(writing, "file_of_store", lambda: None)
    assert not writing.shows_content("auto", "CinePile v2")
    assert writing.shows_content("auto", "CinePile-mini") and writing.shows_content("always", "CinePile v2")


def test_a_trace_is_listed_with_its_run(store: mlflow.MlflowClient) -> None:
    with lifecycle.start("predict") as run:
        trace_id = writing.write(seen(), TAGS, has_content=True, run_id=run.id)
    found = store.search_traces(locations=[run.experiment_id], run_id=run.id)
    assert [trace.info.trace_id for trace in found] == [trace_id]


def test_a_store_that_is_away_costs_a_server_no_answer(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OSError("connection refused")

    writer = writing.Writer(TAGS)
    writer.observe(seen())
    writer.wait()
    monkeypatch.setattr(mlflow, "start_span_no_context", away)
    writer.observe(seen())
    writer.wait()
    assert writer.counts == {"written": 1, "failed": 1}
    assert "cannot be written" in sentence(lambda: writing.write(seen(), TAGS, has_content=False))


# ---- what people say


def judged(verdicts: Mapping[str, Any], has_content: bool = True, **changes: Any) -> str:
    trace_id = writing.write(seen(**changes), TAGS, has_content=has_content)
    for name, value in verdicts.items():
        mlflow.log_feedback(trace_id=trace_id, name=name, value=value, source=HUMAN)
    return trace_id


@pytest.mark.parametrize(
    ("verdicts", "right"),
    [({"answer": "c"}, 2), ({"answer": "the map"}, 3), ({"correct": True}, 1), ({"correct": False, "answer": "A"}, 0)],
    ids=["letter", "text", "as it said", "corrected"],
)
def test_a_verdict_becomes_a_question_that_can_be_trained_on(
    store: mlflow.MlflowClient, verdicts: dict[str, Any], right: int
) -> None:
    judged(verdicts)
    [row], refused = corrections()
    assert refused == {} and set(CINEPILE.columns.values()) == set(row)
    assert check_row(named(row, CINEPILE)) is None
    assert (row["answer_key"], row["answer_key_position"]) == (CHOICES[right], right)
    assert (row["clip_id"], row["movie_name"], row["year"]) == ("mini0001_00", "Film", 1999)
    assert row["subtitles"] == "<subtitle> Look at it."


def test_an_expectation_of_the_ui_counts_like_feedback(store: mlflow.MlflowClient) -> None:
    trace_id = writing.write(seen(), TAGS, has_content=True)
    mlflow.log_expectation(trace_id=trace_id, name="answer", value="E", source=HUMAN)
    [row], _ = corrections([trace_id])
    assert row["answer_key"] == "the ring"


def test_what_makes_no_question_says_why(store: mlflow.MlflowClient) -> None:
    why = {
        judged({"correct": False}): "no option is named",
        judged({"answer": "the sword"}): "no option is named",
        judged({"answer": "A"}, has_content=False): "subtitles were left out",
        judged({"answer": "A"}, choices=None): "without options",
    }
    writing.write(seen(), TAGS, has_content=True)
    robot = judged({})
    mlflow.log_feedback(trace_id=robot, name="answer", value="A", source=AssessmentSource("LLM_JUDGE", "judge"))
    rows, refused = corrections()
    assert rows == [] and set(refused) == set(why)
    assert all(why[trace_id] in reason for trace_id, reason in refused.items())
    with pytest.raises(ValueError, match="one of the task's"):
        corrections(category="Weather")


def test_corrections_are_imported_as_data_to_train_on(store: mlflow.MlflowClient, tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data" / "clips").mkdir(parents=True)
    for number in (1, 2):
        write_clip(tmp_path / "data" / "clips" / f"mini000{number}_00.mp4", number)
    stage = importlib.import_module("cinetune.stages.import")
    params = params_module.load().override("import", {"traces": "all", "out": "corrected"})
    assert "no trace has a person's verdict" in sentence(lambda: stage.run(params))
    judged({"answer": "the map"})
    judged({"answer": "D"}, question="Who is it?", about={"clip_id": "mini0002_00", "group": "Other film"})
    judged({"answer": "A"}, about={})
    judged({"correct": False})
    assert stage.run(params) == Path("corrected")
    (first,), (second,) = ([*clip.questions] for clip in questions.load("corrected", "train"))
    assert (first.answer_text, second.answer_text) == ("the map", "the map") and first.text != second.text
    found = json.loads((tmp_path / "corrected" / "import.json").read_text())
    assert (found["rows"], found["rows_rejected"]) == (3, 1)
    # A question on a video that was sent is of no clip that is here.
    rejected = json.loads((tmp_path / "corrected" / "rejected.jsonl").read_text())
    assert rejected["row"].startswith("corrected-traces.jsonl, row") and "does not exist" in rejected["reason"]
