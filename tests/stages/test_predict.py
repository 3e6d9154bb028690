"""One question about one film: its subtitles, the part that is looked at, the frames on one sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from builders.films import write_film
from builders.refusals import sentence
from cinetune import params
from cinetune.frames.decoder import Decoder
from cinetune.frames.limits import Limits
from cinetune.frames.sampling import FrameSettings
from cinetune.serving import prediction
from cinetune.stages import predict

pytestmark = pytest.mark.serving


def test_only_the_part_that_is_asked_for_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_film(path, 20, {})
    frames = params.load().override("frames", {"max_duration_s": 6.0}).frames
    settings = FrameSettings.of(frames)
    with Decoder(Limits.of(frames)) as decoder:
        assert "above the limit" in sentence(lambda: decoder.read(path, settings))
        clip = decoder.read(path, settings, None, (10.0, 14.0))
        assert all(10 < time_s < 14 for time_s in clip.times) and clip.duration_s == 4.0
        seconds = [round(float(frame.mean()) / 10) for frame in clip.frames]
        assert seconds == [int(time_s) for time_s in clip.times]
        assert decoder.read(path, settings, None, (16.0, 0.0)).duration_s == 4.0
        assert "above the limit" in sentence(lambda: decoder.read(path, settings, None, (2.0, 0.0)))
        assert "nothing lies between" in sentence(lambda: decoder.read(path, settings, None, (30.0, 40.0)))
        whole = decoder.read(path, FrameSettings.of(params.load().frames), None, (0.0, 5.0))
        assert whole.times[0] < 1


def asked(**values: Any) -> Any:
    return params.load().override("predict", {"video": "clip:a", "question": "Who?"} | values).predict


def test_wrong_questions_are_told_before_a_model_is_loaded() -> None:
    assert "not after predict.start" in sentence(lambda: prediction.check(asked(start=5.0, end=5.0)))
    assert "'no.srt' do not exist" in sentence(lambda: prediction.check(asked(subtitles="no.srt")))
    prediction.check(asked(subtitles="Just words."))


def test_a_question_about_a_film_leaves_answer_and_sheet(
    served_folder: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, given = served_folder
    write_film(tmp_path / "film.mp4", 8, {5.0: "Ana has the key."})
    monkeypatch.chdir(root)
    monkeypatch.setenv("CINETUNE_UNTRACKED", "1")
    values = {"model": "adapter", "video": str(tmp_path / "film.mp4"), "question": "Who has the key?", "start": 4.0}
    answer = predict.run(given.override("predict", values))
    assert answer["raw"] and answer["error"] is None
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == answer
    [folder] = root.glob("outputs/runs/*/predict")
    saved = json.loads((folder / predict.ANSWER).read_text())
    assert saved["answer"] == answer["answer"] and all(4 < time_s < 8 for time_s in saved["times_s"])
    assert (folder / predict.SHEET).is_file()


def test_a_question_is_a_trace_of_its_run_with_the_frames(
    served_folder: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: None
) -> None:
    root, given = served_folder
    write_film(tmp_path / "film.mp4", 4, {})
    (tmp_path / "data").symlink_to(root / "data")
    (tmp_path / "base-model").symlink_to(root / "base-model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    values = {"model": str(root / "adapter"), "video": str(tmp_path / "film.mp4"), "question": "Who is it?"}
    try:
        answer = predict.run(given.override("predict", values))
        [trace] = mlflow.MlflowClient().search_traces(locations=["0"])
    finally:
        mlflow.set_tracking_uri(None)
    top = next(span for span in trace.data.spans if span.parent_id is None)
    assert [span.name for span in trace.data.spans if span is not top] == ["decoding", "reading", "answering"]
    assert all(span.end_time_ns > span.start_time_ns for span in trace.data.spans)
    assert top.attributes["answer"] == answer["answer"] and top.attributes["row"]["question"] == "Who is it?"
    pictures = [part for part in top.inputs["messages"][0]["content"] if part["type"] == "image_url"]
    assert len(pictures) == given.frames.num_frames
    assert trace.info.tags["version"] == str(root / "adapter") and trace.info.tags["adapter_sha256"]
