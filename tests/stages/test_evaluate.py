"""`evaluate`, `compare` and `report` as commands: killed, shared out, under ablations, on clips that are missing."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import yaml

from builders.projects import Project, add_inputs, environment, make_project, small_params
from cinetune import params as params_module
from cinetune.artifacts import SEEN_SECTIONS, writing_adapter
from cinetune.model.base import load_base
from cinetune.model.lora import attach_lora, save_adapter
from cinetune.task import prompts
from cinetune.task.description import CINEPILE

pytestmark = [pytest.mark.evaluation, pytest.mark.slow]

BROKEN = "mini0004_00"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Four test films with frames, one clip of which is damaged, and an untrained base; nothing has been trained."""
    made = make_project(tmp_path_factory.mktemp("evaluated") / "project")
    add_inputs(made, {"mini": {"test_films": 4, "clips_per_film": 2}})
    (made.root / "data/clips" / f"{BROKEN}.mp4").write_bytes(b"not a film")
    done = made.cinetune("frames", "--pipeline")
    assert done.returncode == 0, done.stderr[-2000:]
    return made


@pytest.fixture(scope="module")
def whole(project: Project) -> Path:
    """The folder of an undisturbed evaluation of the base, made as DVC would make it."""
    done = project.cinetune("evaluate", "--pipeline", "--model", "base")
    assert done.returncode == 0, done.stderr[-2000:]
    return project.root / "outputs/evaluation/base"


def newest(project: Project, pattern: str) -> Path:
    return max(project.root.glob(f"outputs/runs/*/{pattern}"), key=lambda path: path.stat().st_mtime)


def same_files(one: Path, other: Path) -> bool:
    names = ("predictions.parquet", "metrics.json")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def metrics_of(project: Project, name: str) -> list[tuple[dict[str, str], dict[str, float]]]:
    """Tags and metrics of the MLflow runs of a stage, oldest first."""
    with closing(sqlite3.connect(project.root / "mlflow.db")) as database:
        runs = [run for (run,) in database.execute("SELECT run_uuid FROM runs ORDER BY start_time")]
        found = [
            (
                dict(database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run,))) | {"id": run},
                dict(database.execute("SELECT key, value FROM latest_metrics WHERE run_uuid = ?", (run,))),
            )
            for run in runs
        ]
    return [(tags, metrics) for tags, metrics in found if tags.get("stage") == name]


def test_missing_clips_are_counted_listed_and_bounded(whole: Path) -> None:
    summary = json.loads((whole / "metrics.json").read_text(encoding="utf-8"))
    assert summary["clips_missing"] == 1 and summary["questions_missing"] == summary["missing"][0]["questions"] > 0
    assert summary["missing"][0]["clip_id"] == BROKEN and summary["missing"][0]["reason"]
    scores = summary["scorers"]["logit"]
    limits = scores["bounds"]
    assert limits["missing_wrong"] <= scores["overall"]["accuracy"] <= limits["missing_right"]
    table = pd.read_parquet(whole / "predictions.parquet")
    assert table["status"].value_counts().to_dict().keys() == {"ok", "missing_clip"}


def test_an_evaluation_that_was_killed_goes_on_and_ends_alike(project: Project, whole: Path) -> None:
    checkpoints = project.root / "outputs/checkpoints"
    assert not list(checkpoints.glob("evaluate-*")), "a finished evaluation leaves nothing behind"
    command = [sys.executable, "-m", "cinetune", "evaluate", "--model", "base"]
    process = subprocess.Popen(command, cwd=project.root, env=environment(), stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (
        lines := [line for part in checkpoints.glob("*/part-*.jsonl") for line in part.read_bytes().splitlines()]
    ):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(lines) < 7, "killed too late to show anything"
    (part,) = checkpoints.glob("*/part-*.jsonl")
    before = part.read_bytes().count(b"\n")
    assert 1 <= before < 7
    with part.open("ab") as file:
        file.write(b'{"clip_id": "cut off')
    done = project.cinetune("evaluate", "--model", "base")
    assert done.returncode == 0, done.stderr[-2000:]
    assert same_files(newest(project, "evaluation/base"), whole)
    assert not list(checkpoints.glob("evaluate-*"))
    *_, (_, killed, tags), (_, finished, _) = project.runs()
    assert (killed, finished) == ("KILLED", "FINISHED") and "its process was gone" in tags["failure"]


def test_processes_of_torchrun_share_the_clips_and_give_the_same(project: Project, whole: Path) -> None:
    before = len(project.runs())
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29533"]
    done = project.run([sys.executable, *launch, "-m", "cinetune", "evaluate", "--model", "base"])
    assert done.returncode == 0, done.stderr[-2000:]
    assert same_files(newest(project, "evaluation/base"), whole)
    assert [(stage, status) for stage, status, _ in project.runs()[before:]] == [("evaluate", "FINISHED")]


def test_all_ablations_are_child_runs_with_a_table_of_drops(project: Project, whole: Path) -> None:
    before = len(project.runs())
    done = project.mlflow_run("evaluate", model="base", ablations="all")
    assert done.returncode == 0, done.stderr[-2000:]
    parent, *children = metrics_of(project, "evaluate")[-10:]
    assert len(project.runs()) == before + 10
    assert all(tags["mlflow.parentRunId"] == parent[0]["id"] for tags, _ in children)
    assert [tags["ablation"] for tags, _ in children] == [
        "no_frames", "no_subtitles", "neither", "one_frame", "shuffled",
        "rotation_1", "rotation_2", "rotation_3", "rotation_4",
    ]  # fmt: skip
    summary = json.loads((whole / "metrics.json").read_text(encoding="utf-8"))["scorers"]["logit"]
    _, figures = parent
    assert figures["test/accuracy"] == summary["overall"]["accuracy"]
    assert figures["test/ci_low"] == summary["overall"]["ci95"][0]
    assert figures["test/accuracy/crd"] == summary["categories"]["crd"]["accuracy"]
    for tags, metrics in children:
        drop = figures["test/accuracy"] - metrics["test/accuracy"]
        assert figures[f"drop/{tags['ablation']}"] == pytest.approx(drop)
        assert f"{tags['ablation']} " in done.stdout
    folder = newest(project, "evaluation/base-ablations")
    assert "What is lost" in (folder / "report.html").read_text(encoding="utf-8")
    assert same_files(folder.parent / "base", whole)
    assert json.loads((folder.parent / "base-one_frame/metrics.json").read_text("utf-8"))["ablation"] == "one_frame"
    logged = project.root / f"mlruns/0/{parent[0]['id']}/artifacts/predictions.json"
    assert len(json.loads(logged.read_text(encoding="utf-8"))["data"]) == len(
        pd.read_parquet(whole / "predictions.parquet")
    )


def test_evaluations_are_compared_by_any_of_their_names(project: Project, whole: Path) -> None:
    done = project.cinetune("evaluate", "--model", "random")
    assert done.returncode == 0, done.stderr[-2000:]
    random = newest(project, "evaluation/random")
    run_id = random.parts[-3]
    compared = project.mlflow_run("compare", runs=f"base {run_id}")
    assert compared.returncode == 0, compared.stderr[-2000:]
    assert "p " in compared.stdout and "sign flips" in compared.stdout
    for name in (f"runs:/{run_id}/evaluation/random", str(whole / "predictions.parquet")):
        other = str(random) if "base" in name else "base"
        done = project.cinetune("compare", "--runs", f"{other} {name}", "--scorer", "lenient", "--resample", "films")
        assert done.returncode == 0, done.stderr[-2000:]
    folder = newest(project, "comparison")
    assert (folder / "report.html").is_file() and list(folder.glob("disagreements-*.parquet"))
    content = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert content["resampled"] == "films" and len(content["differences"]) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["compare", "--runs", "base finetuned"], "'finetuned' holds no evaluation"),
        (["compare", "--runs", "base base"], "twice"),
        (["compare", "--runs", "base models:/nothing@champion"], "model 'nothing' has no champion"),
        (["evaluate", "--model", "nowhere.csv"], "'nowhere.csv' does not exist"),
        (["evaluate", "--model", "random", "--ablation", "neither"], "nothing can be withheld"),
        (["evaluate", "--ablation", "shuffled", "--ablations", "all"], "exclude each other"),
        (["evaluate", "--model", "base", "--prompt", "seed"], "there is no prompt template 'seed'"),
        (["report"], "evaluate_finetuned"),
    ],
)
def test_what_cannot_be_evaluated_or_compared_is_one_sentence(
    project: Project, whole: Path, arguments: list[str], named: str
) -> None:
    done = project.cinetune(*arguments)
    assert done.returncode == 2 and named in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_study_trains_on_all_films_and_on_fewer(project: Project, whole: Path) -> None:
    done = project.mlflow_run("study", seeds="3", films="2")
    assert done.returncode == 0, done.stderr[-2000:]
    folder = newest(project, "study")
    content = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert [(row["seed"], row["films"]) for row in content["trainings"]] == [(3, 3), (3, 2)]
    assert [row["films"] for row in content["curve"]] == [2, 3] and content["seeds"]["n"] == 1
    assert "Learning curve" in (folder / "report.html").read_text(encoding="utf-8")
    parent = folder.parts[-2]
    below = [(stage, status) for stage, status, tags in project.runs() if tags.get("mlflow.parentRunId") == parent]
    assert below == [("train", "FINISHED"), ("evaluate", "FINISHED")] * 2
    refused = project.cinetune("study", "--seeds", "3", "--films", "9")
    assert refused.returncode == 2 and "9 of 3 training films" in refused.stderr


def test_questions_of_other_data_are_not_compared(project: Project, whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    summary = json.loads((other / "metrics.json").read_text(encoding="utf-8"))
    (other / "metrics.json").write_text(json.dumps(summary | {"dataset": "CinePile-v2"}), encoding="utf-8")
    refused = project.cinetune("compare", "--runs", f"base {other}")
    assert refused.returncode == 2 and "'CinePile-v2'" in refused.stderr and "allow=dataset" in refused.stderr
    assert project.cinetune("compare", "--runs", f"base {other}", "--allow", "dataset").returncode == 0


def test_no_clip_at_all_is_one_sentence(project: Project, whole: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(project.root / "data/questions/test.parquet")
    data = tmp_path / "data"
    (data / "questions").mkdir(parents=True)
    rows[rows["clip_id"] == BROKEN].to_parquet(data / "questions/test.parquet")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"data": {"root": str(data)}}), encoding="utf-8")
    done = project.cinetune("evaluate", "--model", "base", "--params", str(recipe))
    assert done.returncode == 2 and "none of the 1 clips has frames" in done.stderr


@pytest.fixture(scope="module")
def adapters(project: Project) -> Path:
    """Two adapters of the untrained base, `first` of which was trained on shorter subtitles than params.yaml has."""
    params = params_module.from_dict(small_params()).override("model", {"base": str(project.root / "base-model")})
    adapted = attach_lora(load_base(params.model, "cpu")[0], params.train)
    for name, subtitle_tokens in (("first", 16), ("second", params.prompt.max_subtitle_tokens)):
        settings = params.override("model", {"base": "base-model"})
        settings = settings.override("prompt", {"max_subtitle_tokens": subtitle_tokens})
        with writing_adapter(
            project.root / name, settings.sections(*SEEN_SECTIONS), {"name": name}, CINEPILE
        ) as folder:
            save_adapter(adapted, folder)
    return project.root


def registered(project: Project, adapter: str, data: str, subtitle_tokens: int) -> str:
    """What `register` says of an adapter that has been evaluated on the questions of a folder."""
    recipe = {
        "data": {"root": data, "name": "asked"},
        "prompt": {"max_subtitle_tokens": subtitle_tokens},
        "register": {"name": "asked", "min_clips": 1, "margin": 1.0, "category_margin": 1.0},
    }
    (project.root / "asked.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    done = project.cinetune("evaluate", "--params", "asked.yaml", "--model", adapter)
    assert done.returncode == 0, done.stderr[-2000:]
    evaluation = str(newest(project, f"evaluation/{adapter}"))
    given = ["--adapter", adapter, "--evaluation", evaluation]
    done = project.cinetune("register", "--params", "asked.yaml", *given)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_an_adapter_is_evaluated_and_registered_with_its_own_prompt(project: Project, adapters: Path) -> None:
    theirs = prompts.template() | {"open_suffix": "{question} Say it. ASSISTANT:"}
    (project.root / "theirs.json").write_text(json.dumps(theirs), encoding="utf-8")
    shutil.copytree(project.root / "second", project.root / "elsewhere")
    (project.root / "elsewhere/prompt.json").unlink()
    rows = pd.read_parquet(project.root / "data/questions/test.parquet")
    (project.root / "few/questions").mkdir(parents=True)
    for split, some in (("test", rows[rows["clip_id"] != BROKEN].head(3)), ("train", rows.head(0))):
        some.to_parquet(project.root / f"few/questions/{split}.parquet")
    recipe = {"data": {"root": "few", "name": "few"}, "register": {"name": "words", "min_clips": 1}}
    (project.root / "few.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    few = ("--params", "few.yaml")
    done = project.cinetune("evaluate", *few, "--model", "elsewhere", "--prompt", "theirs.json")
    assert done.returncode == 0, done.stderr[-2000:]
    given = newest(project, "evaluation/elsewhere")
    assert json.loads((given / "metrics.json").read_text(encoding="utf-8"))["prompt"] == theirs
    made = json.loads((given / "made_from.json").read_text(encoding="utf-8"))
    assert metrics_of(project, "evaluate")[-1][0]["prompt.hash"] == made["prompt_hash"] != prompts.template_hash()
    refused = project.cinetune("register", *few, "--adapter", "elsewhere", "--evaluation", str(given))
    assert refused.returncode == 2 and "as prompt.json" in refused.stderr
    shutil.copy(project.root / "theirs.json", project.root / "elsewhere/prompt.json")
    done = project.cinetune("evaluate", *few, "--model", "elsewhere")
    assert done.returncode == 0, done.stderr[-2000:]
    own = newest(project, "evaluation/elsewhere")
    assert (own / "predictions.parquet").read_bytes() == (given / "predictions.parquet").read_bytes()
    done = project.cinetune("register", *few, "--adapter", "elsewhere", "--evaluation", str(own))
    assert done.returncode == 0, done.stderr[-2000:]
    newest_config = max(project.root.glob("mlruns/**/serving.json"), key=lambda path: path.stat().st_mtime)
    served = json.loads(newest_config.read_text(encoding="utf-8"))
    assert served["task"]["prompt"] == theirs and served["prompt_hash"] == made["prompt_hash"]


def test_a_champion_that_was_asked_other_questions_is_evaluated_by_register(project: Project, adapters: Path) -> None:
    """On the challenger's questions, shown what it was trained with itself."""
    rows = pd.read_parquet(project.root / "data/questions/test.parquet")
    few = rows[rows["clip_id"] != BROKEN].groupby("clip_id").head(2)
    for folder, ending in (("asked", ""), ("other", " Exactly?")):
        questions = project.root / folder / "questions"
        questions.mkdir(parents=True)
        shutil.copy(project.root / "data/questions/train.parquet", questions)
        few.assign(question=few["question"] + ending).to_parquet(questions / "test.parquet")
    assert "version 1 is challenger and champion: there was no champion" in registered(project, "first", "asked", 16)

    said = registered(project, "second", "other", small_params()["prompt"]["max_subtitle_tokens"])
    assert "version 2 is challenger and champion" in said and "version 1 was evaluated for this" in said
    *_, (_, _, register_run), (stage, status, child) = project.runs()
    assert (stage, status, child["evaluated"]) == ("evaluate", "FINISHED", "models:/asked/1")
    assert register_run["stage"] == "register" and register_run["version"] == "2"
    made_from = json.loads(newest(project, "evaluation/models-asked-1/made_from.json").read_text(encoding="utf-8"))
    assert made_from["params"]["prompt"]["max_subtitle_tokens"] == 16
    theirs, ours = (
        pd.read_parquet(newest(project, f"evaluation/{name}/predictions.parquet"))
        for name in ("models-asked-1", "second")
    )
    assert list(theirs["question"]) == list(ours["question"]) and theirs["question"].str.endswith("Exactly?").all()

    # Without frames it cannot be asked: the challenger stays one, for a reason.
    frames, away = project.root / "cache/frames", project.root / "cache/away"
    given = ["--adapter", "first", "--evaluation", str(newest(project, "evaluation/first"))]
    frames.rename(away)
    done = project.cinetune("register", "--params", "asked.yaml", *given)
    away.rename(frames)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        "champion stays 2: 0 of 28 questions" in done.stdout and "it could not be evaluated on them now" in done.stdout
    )


def test_the_report_shows_the_frames_of_its_examples_and_opens_in_a_browser(
    project: Project, whole: Path, tmp_path: Path
) -> None:
    finetuned = project.root / "outputs/evaluation/finetuned"
    assert project.cinetune("evaluate", "--model", "random").returncode == 0
    shutil.copytree(newest(project, "evaluation/random"), finetuned)
    done = project.cinetune("report")
    shutil.rmtree(finetuned)
    assert done.returncode == 0, done.stderr[-2000:]
    page = newest(project, "report") / "report.html"
    text = page.read_text(encoding="utf-8")
    for words in ("data:image/jpeg;base64,", "prompt_hash", "questions_digest", "What is missing", BROKEN):
        assert words in text
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no headless Chromium here")
    picture = tmp_path / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--screenshot={picture}"]
    opened = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    assert opened.returncode == 0 and picture.is_file()
    assert "CONSOLE" not in opened.stderr
