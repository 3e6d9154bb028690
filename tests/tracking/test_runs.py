"""MLflow runs that end truthfully whatever happens, and work that goes on when the store does not."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException

import cinetune
from builders.projects import ROOT, environment
from builders.refusals import sentence
from cinetune import __main__ as command_line
from cinetune import params as params_module
from cinetune import pipeline
from cinetune.errors import InputError
from cinetune.stages import frames, train
from cinetune.tracking import lifecycle, runs
from cinetune.tracking.queries import children, maker_of, tag_run
from cinetune.tracking.store import EXPERIMENT

pytestmark = pytest.mark.experience

NOWHERE = "http://127.0.0.1:9"


def only_run(store: mlflow.MlflowClient) -> Any:
    experiment = store.get_experiment_by_name(EXPERIMENT)
    found = store.search_runs([experiment.experiment_id])
    assert len(found) == 1
    return found[0]


def test_a_run_ends_finished_with_what_was_logged(store: mlflow.MlflowClient) -> None:
    with lifecycle.start("train", {"prompt.hash": "abc"}) as run:
        run.log_params({"train": {"epochs": 3}})
        run.log_metrics({"train/loss": 0.5}, step=7)
        schema, counts = {"question": "string"}, {"rows": 3, "clips": 1}
        path = Path("data/questions/train.parquet")
        run.log_dataset("CinePile-mini train", "train", path, "0" * 32 + ".dir", schema, counts)
    logged = store.get_run(run.id)
    assert logged.info.status == "FINISHED"
    assert logged.data.params == {"train.epochs": "3"}
    assert store.get_metric_history(run.id, "train/loss")[0].step == 7
    assert logged.data.tags["stage"] == "train" and logged.data.tags["prompt.hash"] == "abc"
    used = logged.inputs.dataset_inputs[0]
    assert used.dataset.digest == "0" * 32 + ".dir" and used.tags[0].value == "train"
    assert json.loads(used.dataset.profile) == counts
    assert json.loads(used.dataset.schema)["mlflow_colspec"][0] == {
        "name": "question",
        "type": "string",
        "required": True,
    }


@pytest.mark.parametrize("error", [InputError("the base is gone: pull it."), RuntimeError("boom"), SystemExit(143)])
def test_a_run_ends_failed_with_its_reason(store: mlflow.MlflowClient, error: BaseException) -> None:
    with pytest.raises(type(error)), lifecycle.start("train"):
        raise error
    logged = only_run(store)
    assert logged.info.status == "FAILED"
    assert {"InputError": "the base is gone", "RuntimeError": "boom", "SystemExit": "143"}[
        type(error).__name__
    ] in logged.data.tags["failure"]
    assert logged.data.tags["mlflow.note.content"] == f"**Failed:** {logged.data.tags['failure']}"


def test_what_makes_nothing_has_a_run_where_mlflow_began_one_and_else_none(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lifecycle.given("dry run", "dry run") as run:
        run.describe("41 hours")
    assert not store.search_runs(["0"])
    monkeypatch.setenv("MLFLOW_RUN_ID", store.create_run("0").info.run_id)
    with lifecycle.given("dry run", "epochs=9 (dry run)") as run:
        run.describe("41 hours")
    logged = store.get_run(run.id)
    assert (logged.info.status, logged.info.run_name) == ("FINISHED", "epochs=9 (dry run)")
    assert logged.data.tags["mlflow.note.content"] == "41 hours" and logged.data.tags["stage"] == "dry run"


@pytest.mark.parametrize(
    ("stage", "describe", "told"),
    [
        (frames, "cinetune.stages.frames.describe", ["frames: 41 hours."]),
        (train, "cinetune.runtime.cost.describe", ["8 clips", "41 hours"]),
    ],
    ids=["frames", "train"],
)
def test_the_dry_run_of_every_stage_tells_its_estimate_on_the_run_that_mlflow_began(
    stage: ModuleType,
    describe: str,
    told: list[str],
    store: mlflow.MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = stage.__name__.rpartition(".")[2]
    given = store.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(describe, lambda params: told)
    assert stage.main(["--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == told
    logged = store.get_run(given)
    assert (logged.info.status, logged.info.run_name) == ("FINISHED", f"{name} (dry run)")
    assert logged.data.tags["mlflow.note.content"] == "\n".join(f"- {line}" for line in told)


@pytest.mark.parametrize("stage", ["frames", "train"])
def test_what_needs_more_than_an_estimate_refuses_a_dry_run(stage: str) -> None:
    asked = params_module.load(ROOT / "params.yaml").override(stage, {"dry_run": True})
    for needing in (
        lambda: pipeline.refuse_dry_run(asked),
        lambda: pipeline.dry_run(stage, asked, lambda params: [], is_pipeline=True),
    ):
        assert f"mlflow run . -e {stage} -P dry_run=true" in sentence(needing)


def test_the_run_of_mlflow_run_is_taken_up_and_its_id_not_handed_on(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = store.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    with lifecycle.start("train") as run:
        assert run.id == given
        assert "MLFLOW_RUN_ID" not in os.environ
    assert store.get_run(given).info.status == "FINISHED"


@pytest.mark.parametrize(("given", "kept"), [(None, "train epochs=1"), ("lr-sweep-1", "lr-sweep-1")])
def test_a_name_that_mlflow_made_up_gives_way_and_a_persons_stays(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, given: str | None, kept: str
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", store.create_run("0", run_name=given).info.run_id)
    with lifecycle.start("train", name="train epochs=1") as run:
        pass
    assert store.get_run(run.id).info.run_name == kept


def test_a_run_that_ends_before_its_stage_begins_has_the_entry_points_name(store: mlflow.MlflowClient) -> None:
    given = store.create_run("0", tags={"mlflow.project.entryPoint": "evaluate"}).info.run_id
    lifecycle.fail(given, "parameter 'epochz' is not known")
    assert store.get_run(given).info.run_name == "evaluate"


def test_a_run_says_what_it_made_with_links_to_other_runs(store: mlflow.MlflowClient) -> None:
    with lifecycle.start("main") as run:
        run.describe(f"train: run {'a' * 32}")
    text = store.get_run(run.id).data.tags["mlflow.note.content"]
    assert text == f"train: [run {'a' * 32}](#/experiments/{run.experiment_id}/runs/{'a' * 32})"


def test_a_stage_of_the_loop_is_a_child_of_the_loops_run(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = store.create_run("0").info
    monkeypatch.setenv(lifecycle.PARENT, parent.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", parent.experiment_id)
    with lifecycle.start("frames", {"dvc.stage": "frames"}) as run:
        pass
    tag_run(run.id, "dvc.outputs", "cache/frames:1.dir")
    assert children(runs.Run(parent.run_id, parent.experiment_id, store)) == {"frames": run.id}
    assert maker_of(parent.experiment_id, "frames", "cache/frames:1.dir") == run.id
    assert maker_of(parent.experiment_id, "frames", "cache/frames:2.dir") is None


def test_parameters_that_a_run_has_already_stay(store: mlflow.MlflowClient) -> None:
    with lifecycle.start("train") as run:
        run.log_params({"train": {"epochs": 3}})
        run.log_params({"train": {"epochs": 4, "seed": 1}, "": {"Seed": 1}})
    assert store.get_run(run.id).data.params == {"train.epochs": "3", "train.seed": "1", "Seed": "1"}


def test_metrics_that_are_no_numbers_and_odd_names_are_logged_all_the_same(store: mlflow.MlflowClient) -> None:
    with lifecycle.start("train") as run:
        run.log_metrics({"loss": math.nan, "a&b": 1.0, "../x//y": 2.0, "nothing": None})
    logged = store.get_run(run.id).data.metrics
    assert math.isnan(logged.pop("loss"))
    assert logged == {"a_b": 1.0, "x/y": 2.0}


def break_store(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Every write fails until the returned function is called."""
    is_broken = True
    write = mlflow.MlflowClient.log_batch

    def log_batch(*arguments: Any, **keywords: Any) -> None:
        if is_broken:
            raise MlflowException("API request failed")
        write(*arguments, **keywords)

    def mend() -> None:
        nonlocal is_broken
        is_broken = False

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    return mend


def test_metrics_are_buffered_until_the_store_is_reachable_again(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with lifecycle.start("train") as run:
        mend = break_store(monkeypatch)
        run.log_metrics({"loss": 3.0}, 1)
        run.log_metrics({"loss": 2.0}, 2)
        mend()
    assert [metric.step for metric in store.get_metric_history(run.id, "loss")] == [1, 2]
    errors = capsys.readouterr().err
    assert errors.count("buffering metrics") == 1 and "not logged" not in errors


def test_a_store_that_stays_unreachable_is_reported_and_stops_nothing(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with lifecycle.start("train") as run:
        break_store(monkeypatch)
        run.log_metrics({"loss": 3.0}, 1)
        run.set_tags({"a": "b"})
    told = capsys.readouterr().err
    assert f"not logged to run {run.id}" in told and "1 metrics" in told and "tags" in told


def test_a_resumed_run_takes_what_is_logged_and_both_end(store: mlflow.MlflowClient) -> None:
    with pytest.raises(SystemExit), lifecycle.start("train") as run:
        run.log_metrics({"loss": 3.0}, 1)
        raise SystemExit(143)
    for error, status in ((None, "FINISHED"), (RuntimeError("boom"), "FAILED")):
        try:
            with lifecycle.start("train") as again:
                begun = again.id
                again.resume(run.id)
                again.log_metrics({"loss": 2.0}, 2)
                if error:
                    raise error
        except RuntimeError:
            assert error
        assert again.id == run.id
        assert [store.get_run(name).info.status for name in (begun, run.id)] == [status, status]
        assert store.get_run(begun).data.tags["resumed"] == run.id
        for name in ("failure", "mlflow.note.content"):
            assert (name in store.get_run(run.id).data.tags) is (status == "FAILED")
    assert [metric.step for metric in store.get_metric_history(run.id, "loss")] == [1, 2, 2]
    assert mlflow.active_run() is None


def test_a_run_that_another_process_ended_keeps_its_reason(store: mlflow.MlflowClient) -> None:
    with pytest.raises(InputError), lifecycle.start("train") as run:
        raise InputError("the base is gone: pull it.")
    lifecycle.fail(run.id, "it ended unexpectedly")
    assert "the base is gone" in store.get_run(run.id).data.tags["failure"]


def test_a_store_that_is_unreachable_at_the_start_is_one_sentence(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(NOWHERE)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI") as caught, lifecycle.start("train"):
        pytest.fail("there is no store to write to")
    assert "\n" not in str(caught.value) and NOWHERE in str(caught.value)


@pytest.mark.usefixtures("apart")
def test_wrong_arguments_under_mlflow_run_end_that_run_failed(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = store.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    # It would watch the parent of these tests.
    monkeypatch.setattr(command_line, "STARTED_BY", ())
    assert command_line.main(["train", "--epochz", "3"]) == 2
    assert "'epochz'" in capsys.readouterr().err
    logged = store.get_run(given)
    assert logged.info.status == "FAILED" and "'epochz'" in logged.data.tags["failure"]


def test_without_tracking_metrics_are_printed_and_mlflow_is_not_needed(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from cinetune.tracking import lifecycle\n"
        "with lifecycle.start('train') as run:\n"
        "    run.log_params({'train': {'epochs': 3}})\n"
        "    run.log_metrics({'loss': 0.5, 'none': None}, 7)\n"
    )
    variables = environment() | {"CINETUNE_UNTRACKED": "1", "PYTHONPATH": str(Path(cinetune.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "step 7: loss=0.5\n"), done.stderr
    assert not list(tmp_path.iterdir())


def test_of_several_processes_only_the_first_writes(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    with lifecycle.start("train") as run:
        run.log_metrics({"loss": 0.5}, 7)
    assert capsys.readouterr().out == ""
    assert store.get_experiment_by_name(EXPERIMENT) is None


def test_a_trainings_run_has_system_metrics_and_others_have_not(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    found = {}
    for stage in ("train", "evaluate"):
        with lifecycle.start(stage) as run:
            run.log_metrics({"loss": 1.0})
            time.sleep(0.6)
        found[stage] = {name.partition("/")[0] for name in store.get_run(run.id).data.metrics}
    assert found == {"train": {"loss", "system"}, "evaluate": {"loss"}}
