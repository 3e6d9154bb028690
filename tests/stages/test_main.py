"""What a user touches: one sentence for what is wrong, and the whole loop on a project made tiny."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
import yaml

from builders.bases import write_real_layout
from builders.projects import ROOT, Project, add_inputs, environment, make_project
from cinetune import __main__ as command_line
from cinetune import cli, pipeline
from cinetune import params as params_module
from cinetune.cli import LOOP_PARAMS, parse
from cinetune.errors import InputError
from cinetune.files import whole_folder
from cinetune.params import SECTIONS

pytestmark = pytest.mark.experience


def refused(project: Project, *arguments: str) -> str:
    """The one sentence on stderr of a command that must not succeed."""
    done = project.cinetune(*arguments)
    assert done.returncode == 2, done
    return one_sentence(done.stdout, done.stderr)


def one_sentence(stdout: str, stderr: str) -> str:
    assert stdout == ""
    lines = stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].endswith("."), stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--epochz", "3"], ["'epochz'", "epochs"]),
        (["train", "--epochs", "many"], ["train.epochs", "'many'", "a number"]),
        (["train", "--lora_rank", "2.5"], ["train.lora_rank", "'2.5'", "a whole number"]),
        (["train", "--learning_rate", "-1"], ["train.learning_rate", "'-1'"]),
        (["train", "--epochs"], ["'epochs'", "no value"]),
        (["train", "--epochs", "--seed", "3"], ["'epochs'", "no value"]),
        (["train", "--seed", "3", "--seed", "4"], ["'seed'", "twice"]),
        (["train", "epochs=3"], ["'epochs=3'", "--<parameter> <value>"]),
        (["train", "--pipeline", "--epochs", "3"], ["--pipeline", "params.yaml"]),
        (["train", "--params", "nowhere.yaml"], ["'nowhere.yaml'", "does not exist"]),
        (["evaluate", "--ablation", "sound"], ["evaluate.ablation", "'sound'", "no_frames"]),
        (["evaluate", "--pipeline", "--model", "outputs/adapter"], ["--model base"]),
        (["evaluate", "--ablations", "sound"], ["evaluate.ablations", "'sound'", "no_frames"]),
        (["compare", "--scorer", "fair"], ["compare.scorer", "'fair'", "lenient"]),
        (["predict", "--question", "Who?"], ["predict.video"]),
        (["predict", "--video", "nowhere.mp4", "--question", "Who?"], ["'nowhere.mp4'", "does not exist"]),
        (["predict", "--video", "clip:a", "--question", "Who?", "--choices", "a"], ["got 1", "|"]),
        (["predict", "--video", "clip:a"], ["predict.question"]),
        (["paint"], ["'paint'", "train"]),
    ],
)
@pytest.mark.usefixtures("apart")
def test_wrong_arguments_are_one_sentence_and_status_2(
    bare_project: Project,
    arguments: list[str],
    named: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(bare_project.root)
    assert command_line.main(arguments) == 2
    sentence = one_sentence(*capsys.readouterr())
    assert all(words in sentence for words in named), sentence


def test_help_tells_what_a_stage_takes_and_costs_no_slow_import(bare_project: Project) -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'mlflow', 'pandas', 'numpy'])); "
    code = f"{blocked}from cinetune.__main__ import main; main(['train', '--help'])"
    done = bare_project.run([sys.executable, "-c", code])
    assert done.returncode == 0 and "outputs/adapter" in done.stdout and "--learning_rate" in done.stdout
    whole = bare_project.cinetune("--help")
    assert whole.returncode == 0 and "evaluate" in whole.stdout


def test_a_params_file_may_hold_only_what_differs(bare_project: Project, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train: {epochs: 5}\n", encoding="utf-8")
    before = Path.cwd()
    os.chdir(bare_project.root)
    try:
        arguments = parse(["--params", str(recipe), "--seed", "9"], "train", "")
    finally:
        os.chdir(before)
    assert (arguments.params.train.epochs, arguments.params.train.seed) == (5, 9)
    assert arguments.params.evaluate.seed == 7


def test_a_params_file_with_an_unknown_key_is_refused(bare_project: Project, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    for content, named in (("train: {epochz: 5}\n", "'epochz'"), ("trian: {}\n", "'trian'"), ("- 1\n", "sections")):
        recipe.write_text(content, encoding="utf-8")
        assert named in refused(bare_project, "train", "--params", str(recipe))


TYPED = {int: ("3", "5"), float: ("0.25", "0.5"), bool: ("true", "false"), str: ("one", "another")}


@pytest.mark.parametrize("command", [name for name in cli.commands() if name in SECTIONS])
def test_what_a_user_types_wins_over_a_file_and_over_params_yaml(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not it equals a default; MLflow passes every parameter, as nothing those that nobody gave."""
    monkeypatch.chdir(ROOT)
    kinds = cli.kinds_of(command)
    for name, kind in kinds.items():
        shipped = params_module.load().to_dict()[command][name]
        values = [params_module.read_value(command, name, text) for text in TYPED.get(kind) or get_args(kind)[:2]]
        for typed in filter(None, dict.fromkeys([shipped if shipped is not False else "false", *values])):
            others = [value for value in values if str(value).lower() != str(typed).lower()]
            recipe = tmp_path / "recipe.yaml"
            recipe.write_text(yaml.safe_dump({command: {name: others[0]}}), encoding="utf-8")
            words = [word for key in kinds for word in (f"--{key}", str(typed) if key == name else "")]
            read = parse(["--params", str(recipe), *words], command, "").params.to_dict()[command]
            assert str(read[name]).lower() == str(typed).lower(), name


def test_a_runs_name_says_what_differs_from_the_projects_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    params = parse([], "train", "").params
    assert pipeline.unusual(params, "train") == []
    changed = params.override("train", {"learning_rate": "1e-4", "seed": "9", "resume": "true"})
    said = ["learning_rate=0.0001", "resume=True"]
    assert pipeline.unusual(changed, "train", known=["seed"]) == said
    # As the loop hands its values to DVC's stages.
    recipe = tmp_path / "loop.yaml"
    recipe.write_text(yaml.safe_dump(changed.to_dict()), encoding="utf-8")
    monkeypatch.setenv(LOOP_PARAMS, str(recipe))
    of_stage = parse(["--pipeline"], "train", "", has_pipeline=True).params
    assert pipeline.unusual(of_stage, "train", known=["seed"]) == said
    assert parse([], "train", "").params.train.seed == params.train.seed
    assert pipeline.run_name("train", "a\nb", "x" * 100) == f"a b {'x' * 67}… (train)"


def test_text_with_any_sign_reaches_the_stage(bare_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bare_project.root)
    question = 'Who\'s "there"? --x=1 $HOME | `a`\nand {b}?'
    read = parse(["--question", question, "--choices=a=1|b"], "predict", "").params.predict
    assert (read.question, read.choices) == (question, "a=1|b")
    read = parse(["--question", "--who?", "--choices", "-1|+1", "--video", "-x"], "predict", "").params.predict
    assert (read.question, read.choices, read.video) == ("--who?", "-1|+1", "-x")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with whole_folder(target) as folder:
        (folder / "old").touch()
    with pytest.raises(InputError), whole_folder(target) as folder:
        (folder / "new").touch()
        raise InputError("it went wrong.")
    assert [path.name for path in tmp_path.rglob("*")] == ["adapter", "old"]


# ---- under mlflow run: some seconds each


def test_data_that_was_not_pulled_is_one_sentence_and_a_failed_run(bare_project: Project) -> None:
    done = bare_project.mlflow_run()
    assert done.returncode != 0
    told = "'data.dvc' that DVC could pull it by does not either"
    assert told in done.stderr and "Traceback" not in done.stderr
    stage, status, tags = bare_project.runs()[-1]
    assert (stage, status) == ("main", "FAILED") and told in tags["failure"]
    assert "data" in refused(bare_project, "train")
    assert bare_project.runs()[-1][:2] == ("train", "FAILED")


@pytest.mark.slow
def test_an_unknown_parameter_of_mlflow_run_is_one_sentence_and_a_failed_run(bare_project: Project) -> None:
    done = bare_project.mlflow_run("train", epochz="1")
    assert done.returncode != 0
    assert "error: train: parameter 'epochz' is not known" in done.stderr and "Traceback" not in done.stderr
    _, status, tags = bare_project.runs()[-1]
    assert status == "FAILED" and "'epochz'" in tags["failure"]


# ---- the whole loop


@pytest.mark.slow
def test_the_loop_makes_everything_as_children_of_one_run(
    looped: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, done = looped
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("base", "finetuned"):
        metrics = json.loads((project.root / f"outputs/evaluation/{name}/metrics.json").read_text(encoding="utf-8"))
        assert list(metrics)[:7] == [
            "model",
            "dataset",
            "split",
            "ablation",
            "scorers",
            "clips_missing",
            "questions_missing",
        ]
    (_, status, _), *stages_run = project.runs()[:7]
    assert status == "FINISHED"
    assert [stage for stage, _, _ in stages_run] == ["frames", "train", "evaluate", "evaluate", "report", "register"]
    loop_run = {tags["mlflow.parentRunId"] for _, _, tags in stages_run}
    assert len(loop_run) == 1 and all(status == "FINISHED" for _, status, _ in stages_run)
    assert all("dvc.outputs" in tags for stage, _, tags in stages_run if stage != "register")
    assert all("git.commit" in tags and tags["git.dirty"] == "false" for _, _, tags in stages_run)
    assert "fine-tuned" in done.stdout and "register: version 1" in done.stdout
    told = "Version 1 of cinepile-video-llava is served by: python -m cinetune serve models:/cinepile-video-llava/1"
    assert done.stdout.strip().splitlines()[-1] == told


@pytest.mark.slow
def test_a_second_loop_does_nothing_again_and_says_so(
    looped: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = looped
    before = len(project.runs())
    done = project.mlflow_run()
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("frames", "train", "evaluate_base", "evaluate_finetuned", "report", "register"):
        assert f"{stage}: unchanged, skipped" in done.stdout
    assert "not in this store" not in done.stdout
    (stage, status, tags), *more = project.runs()[before:]
    assert (stage, status, more) == ("main", "FINISHED", [])
    assert tags["unchanged.register"] == "version 1"
    changed = project.run(["git", "status", "--porcelain"]).stdout.split()
    assert changed in ([], ["??", "dvc.lock"])
    assert project.run([sys.executable, "-m", "dvc", "status", "-q"]).returncode == 0


@pytest.mark.slow
def test_a_stage_by_hand_leaves_the_pipelines_outputs_alone(
    looped: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = looped
    trained = project.mlflow_run("train", epochs="1", seed="3")
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert project.run([sys.executable, "-m", "dvc", "status", "-q"]).returncode == 0
    [adapter] = project.root.glob("outputs/runs/*/adapter")
    assert json.loads((adapter / "params.json").read_text(encoding="utf-8"))["train"]["seed"] == 3
    run_id = adapter.parent.name
    for model in (f"runs:/{run_id}/adapter", "outputs/evaluation/base/predictions.parquet"):
        done = project.cinetune("evaluate", "--model", model)
        assert done.returncode == 0, done.stderr[-3000:]
    done = project.cinetune("evaluate", "--ablation", "neither")
    assert done.returncode == 0 and list(project.root.glob("outputs/runs/*/evaluation/finetuned-neither/metrics.json"))
    done = project.cinetune("compare", "--runs", "base models:/cinepile-video-llava@champion")
    assert done.returncode == 0 and "models:/cinepile-video-llava@champion minus base" in done.stdout, done.stderr
    refusal = project.cinetune("register", "--adapter", str(adapter))
    assert refusal.returncode == 2 and "of another adapter" in refusal.stderr


@pytest.mark.slow
def test_a_base_or_frames_that_do_not_fit_are_one_sentence(
    looped: tuple[Project, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    project, _ = looped
    for content, named in (
        ("model: {base: src}", "base model 'src' is not a model folder"),
        ("frames: {num_frames: 4}", "frames.num_frames=2, not 4"),
        ("data: {root: nowhere}", "nowhere/questions/train.parquet does not exist"),
    ):
        (tmp_path / "recipe.yaml").write_text(content, encoding="utf-8")
        done = project.cinetune("train", "--params", str(tmp_path / "recipe.yaml"))
        assert done.returncode == 2 and named in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert project.runs()[-1][:2] == ("train", "FAILED")


@pytest.mark.slow
def test_the_champion_answers_a_question_with_any_sign(
    looped: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = looped
    video = next((project.root / "data/clips").iterdir())
    question = 'Who\'s "there"? $HOME\nor {x} | y'
    done = project.mlflow_run("predict", video=str(video), question=question, choices="a b|b c|c'd|d|e")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert list(answer) == ["answer", "choice", "confidence", "raw", "error"]
    assert answer["error"] is None and answer["choice"] in "ABCDE"


@pytest.mark.slow
def test_training_runs_where_mlflow_dvc_and_av_are_not_installed(
    looped: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = looped
    blocked = "import sys; sys.modules.update(dict.fromkeys(['mlflow', 'dvc', 'av'])); "
    code = f"{blocked}from cinetune.__main__ import main; sys.exit(main(['train', '--epochs', '1']))"
    done = project.run([sys.executable, "-c", code], CINETUNE_UNTRACKED="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "validation/accuracy=" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_loop_that_is_stopped_ends_all_its_runs_and_leaves_params_alone(
    looped: tuple[Project, subprocess.CompletedProcess[str]], tmp_path: Path, number: signal.Signals
) -> None:
    project, _ = looped
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"train: {{epochs: 5000, seed: {int(number)}}}\n", encoding="utf-8")
    original = (project.root / "params.yaml").read_text(encoding="utf-8")
    before = len(project.runs())
    command = ["-m", "mlflow", "run", ".", "--env-manager", "local", "-P", f"params={recipe}"]
    with (tmp_path / "output").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=project.root,
            env=environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
            # A shell that runs tests in the background makes them ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        until = time.monotonic() + 120
        while "'loss'" not in (tmp_path / "output").read_text(encoding="utf-8") and time.monotonic() < until:
            assert process.poll() is None, (tmp_path / "output").read_text(encoding="utf-8")
            assert (project.root / "params.yaml").read_text(encoding="utf-8") == original
            time.sleep(0.5)
        os.killpg(process.pid, number)
        assert process.wait(timeout=60) != 0
    until = time.monotonic() + 60
    while any(status == "RUNNING" for _, status, _ in project.runs()) and time.monotonic() < until:
        time.sleep(0.5)
    ended = [(stage, status) for stage, status, _ in project.runs()[before:]]
    assert ended == [("main", "FAILED"), ("train", "FAILED")]
    assert (project.root / "params.yaml").read_text(encoding="utf-8") == original


@pytest.mark.slow
@pytest.mark.nightly
def test_a_base_in_the_layout_of_the_real_one_goes_through_the_loop_by_configuration_alone(tmp_path: Path) -> None:
    """Shards with an index under older names, LLaMA's kind of tokenizer; the version that embeds it needs no other."""
    changes = {"frames": {"size": 224}, "register": {"embed_base": True}}
    project = make_project(tmp_path / "project", changes)
    add_inputs(project, changes)
    shutil.rmtree(project.root / "base-model")
    write_real_layout(project.root / "base-model")
    (project.root / "base-model" / "pretraining.json").write_text("{}")
    done = project.mlflow_run()
    assert done.returncode == 0, done.stderr[-3000:]
    assert [status for _, status, _ in project.runs()] == ["FINISHED"] * 7
    shutil.rmtree(project.root / "base-model")
    video = next((project.root / "data/clips").iterdir())
    asked = ["--video", str(video), "--question", "Who is it?", "--choices", "a|b|c|d|e"]
    answered = project.cinetune("predict", *asked)
    assert answered.returncode == 0, answered.stderr[-3000:]
    assert json.loads(answered.stdout.strip().splitlines()[-1])["error"] is None
