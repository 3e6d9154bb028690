"""Who becomes champion and why, what a version carries, and whether it can be made again."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from cinetune import gate, licences, provenance, registry, stages
from cinetune.errors import InputError
from cinetune.questions import CATEGORIES
from cinetune.stages import register, reproduce
from conftest import SERVED_METRICS, Project, environment, sentence

pytestmark = pytest.mark.serving

QUESTIONS = 400


def predictions(accuracy: float, seed: int = 0, n: int = QUESTIONS) -> pd.DataFrame:
    """Ten questions a clip; which of them are answered rightly is drawn by `seed`."""
    right = np.random.default_rng(seed).random(n) < accuracy
    letters = np.where(right, "A", "B")
    return pd.DataFrame(
        {
            "question_id": [f"q{i}" for i in range(n)],
            "clip_id": [f"c{i // 10}" for i in range(n)],
            "film": [f"f{i // 30}" for i in range(n)],
            "category": next(iter(CATEGORIES)),
            "hard_split": "False",
            "visual_reliance": "0",
            "question": "?",
            "gold": "A",
            "raw": letters,
            **dict.fromkeys(("strict", "lenient", "logit"), letters),
            **{f"p_{letter}": 0.2 for letter in "ABCDE"},
            "status": "ok",
        }
    )


def judged(ours: pd.DataFrame, theirs: pd.DataFrame, margin: float = 0.03) -> gate.Verdict:
    return gate.judge(ours, theirs, "3", margin, 500, 7)


def test_a_better_or_equal_model_passes_and_a_worse_one_does_not() -> None:
    champion = predictions(0.5)
    assert judged(champion, champion).has_earned
    better = judged(predictions(0.8), champion)
    assert better.has_earned and "ruled out" in better.reason and "version 3 on the same 400 questions" in better.reason
    worse = judged(predictions(0.3), champion)
    assert not worse.has_earned and "a loss of more than 3 points is not ruled out" in worse.reason


def test_a_loss_that_a_small_test_cannot_exclude_does_not_pass() -> None:
    ours, theirs = predictions(0.5, seed=1, n=40), predictions(0.5, seed=2, n=40)
    assert not judged(ours, theirs).has_earned
    assert judged(ours, theirs, margin=0.9).has_earned


def test_only_the_same_questions_are_compared() -> None:
    champion = predictions(0.5)
    part = judged(predictions(0.9).iloc[:100], champion)
    assert not part.has_earned and "300 questions were answered by only one" in part.reason
    foreign = judged(predictions(0.9).assign(gold="C"), champion)
    assert not foreign.has_earned and "cannot be compared with version 3" in foreign.reason


def test_cinepiles_licence_must_be_acknowledged_and_no_other() -> None:
    assert licences.of_data("CinePile-mini", "") == "Apache-2.0"
    assert licences.of_data("my films", "") == "unknown"
    for name in ("CinePile-v1", "cinepile v2"):
        assert "register.accept_licence" in sentence(lambda name=name: licences.of_data(name, ""))
        assert "register.accept_licence" in sentence(lambda name=name: licences.of_data(name, "yes"))
        assert licences.of_data(name, "CC-BY-NC-SA-4.0") == "CC-BY-NC-SA-4.0"


@pytest.mark.slow
def test_the_loop_refuses_a_licence_that_was_not_acknowledged_before_any_work(
    bare_project: Project, tmp_path: Path
) -> None:
    for name in ("questions/train.parquet", "questions/test.parquet", "clips/a.mp4"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "config.json").write_text("{}")
    content = {"data": {"name": "CinePile-v1", "root": str(tmp_path / "data")}, "model": {"base": str(tmp_path)}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    done = bare_project.cinetune("main", "--params", str(tmp_path / "recipe.yaml"))
    assert done.returncode == 2 and "register.accept_licence" in done.stderr, done.stderr


def test_a_whole_evaluation_of_this_adapter_is_wanted(tmp_path: Path) -> None:
    adapter, evaluation = tmp_path / "adapter", tmp_path / "evaluation"
    adapter.mkdir()
    assert "there is no adapter" in sentence(lambda: register.check(adapter, evaluation))
    (adapter / "adapter_config.json").touch()
    assert "there is no evaluation" in sentence(lambda: register.check(adapter, evaluation))
    write_evaluation(evaluation, adapter, 0.5)
    assert register.check(adapter, evaluation) == provenance.folder_digest(adapter)
    write_evaluation(evaluation, adapter, 0.5, ablation="no_frames")
    assert "'no_frames'" in sentence(lambda: register.check(adapter, evaluation))
    (adapter / "adapter_config.json").write_text("changed")
    assert "of another adapter" in sentence(lambda: register.check(adapter, evaluation))


def write_evaluation(folder: Path, adapter: Path, accuracy: float, ablation: str | None = None) -> None:
    folder.mkdir(exist_ok=True)
    predictions(accuracy).to_parquet(folder / "predictions.parquet")
    (folder / "metrics.json").write_text(json.dumps(SERVED_METRICS | {"ablation": ablation}))
    (folder / stages.MADE_FROM).write_text(json.dumps({"adapter_digest": provenance.folder_digest(adapter)}))


@pytest.mark.slow
def test_champion_moves_only_when_earned_forced_or_rolled_back(
    served_folder: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    root, params = served_folder
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    monkeypatch.setenv("CINETUNE_ROOT", str(root))
    for name, accuracy in (("first", 0.6), ("worse", 0.3)):
        shutil.copytree(root / "adapter", tmp_path / name)
        (tmp_path / name / "training.json").write_text(json.dumps({"name": name}))
        write_evaluation(tmp_path / f"{name}-evaluation", tmp_path / name, accuracy)

    def registered(name: str, **values: bool) -> str:
        chosen = {"adapter": name, "evaluation": f"{name}-evaluation"} | values
        return register.run(params.override("register", chosen))

    try:
        model = params.register.name
        assert registered("first") == "1"
        assert registry.aliases(model) == {"challenger": "1", "champion": "1"}
        tags = registry.version_tags(model, "1")
        assert tags["champion_reason"] == "there was no champion"
        assert tags["licence"] == "Apache-2.0" and tags["base_model"] == "base-model"
        assert {"prompt.hash", "frames.identity", "frames.settings", "base_sha256", "data"} <= tags.keys()

        assert registered("worse") == registered("worse") == "2"
        assert registry.aliases(model) == {"challenger": "2", "champion": "1"}
        assert "is not ruled out" in registry.version_tags(model, "2")["champion_reason"]

        assert registered("worse", force=True) == "2"
        assert registry.aliases(model)["champion"] == "2"
        assert registry.version_tags(model, "2")["champion_reason"].startswith("forced; without that: -")

        assert register.run(params.override("register", {"rollback": True})) == "1"
        assert registry.aliases(model) == {"challenger": "2", "champion": "1"}
        assert registered("worse") == "2" and registry.aliases(model)["champion"] == "1"
        assert "rolled back" in registry.version_tags(model, "2")["champion_reason"]
        assert "follows no other" in sentence(lambda: register.run(params.override("register", {"rollback": True})))

        assert registry.resolve(f"models:/{model}@champion") == (model, "1")
        assert registry.resolve(f"models:/{model}/2") == (model, "2")
        for address in (f"models:/{model}@nobody", f"models:/{model}", "runs:/1/model", f"models:/{model}/9"):
            with pytest.raises(InputError):
                registry.version_tags(*registry.resolve(address))
        card = registry.fetch_artifact(model, "1", "artifacts/README.md", tmp_path / "fetched").read_text()
        assert "Licence of the adapter: Apache-2.0" in card and "frames of 64 pixels" in card
        saved = registry.fetch_artifact(model, "1", "artifacts/params.yaml", tmp_path / "fetched")
        assert yaml.safe_load(saved.read_text())["train"] == dataclasses.asdict(params.train)
        assert "outside a git repository" in sentence(lambda: reproduce.run(f"models:/{model}@champion"))
    finally:
        mlflow.set_tracking_uri(before)


def test_a_card_of_cinepile_tells_its_terms() -> None:
    from cinetune import model_card

    config = {
        "model": {"base": "hub/base", "revision": "abc", "quantization": "nf4", "dtype": "bfloat16"},
        "frames": {"num_frames": 8, "size": 224},
        "embeds_base": True,
        **dict.fromkeys(("base_sha256", "frame_settings", "prompt_hash"), "0"),
    }
    tags = {"licence": licences.CINEPILE, "data": "CinePile-v1", "git.commit": "c0ffee", "dvc.questions": "beef.dir"}
    card = model_card.text(config, None, tags)
    assert "non-commercially" in card and "`c0ffee`" in card and "`beef.dir`" in card and "hub/base` at abc" in card
    assert "It is in this version" in card and "Not evaluated" in card


# ---- whether a version can be made again


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_data_is_looked_for_file_by_file_in_cache_and_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc = (sys.executable, "-m", "dvc")
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True)
    for name in "ab":
        (root / "data" / name).write_text(name)
    run(root, "git", "init", "-q")
    run(root, *dvc, "init", "-q")
    run(root, *dvc, "config", "core.analytics", "false")
    run(root, *dvc, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    run(root, *dvc, "add", "-q", "data")
    run(root, "git", "add", "-A")
    run(root, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "Data")
    commit, md5 = run(root, "git", "rev-parse", "HEAD"), provenance.dvc_hash(root / "data")
    monkeypatch.chdir(root)

    def found() -> str:
        return reproduce._check_tracked(commit, "data.dvc", md5)

    assert found() == "the cache"
    run(root, *dvc, "push", "-q")
    objects = sorted(path for path in (root / ".dvc/cache/files").rglob("*") if path.is_file())
    objects[0].unlink()
    assert found() == "the remote"
    (tmp_path / "store" / objects[0].relative_to(root / ".dvc/cache")).unlink()
    assert "whole neither in DVC's cache nor in its remote" in sentence(found)
    assert "names" in sentence(lambda: reproduce._check_tracked(commit, "data.dvc", "0" * 32))
    assert "is not in this repository" in sentence(lambda: reproduce._check_commit({"git.commit": "0" * 40}, "m"))


@pytest.mark.slow
def test_the_champion_of_the_loop_says_how_to_make_it_again(
    looped: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = looped
    done = project.cinetune("reproduce", "models:/cinepile-video-llava@champion")
    assert done.returncode == 0, done.stderr
    commit = run(project.root, "git", "rev-parse", "HEAD")
    assert f"# commit {commit}: found" in done.stdout
    assert f"git worktree add ../cinetune-{commit[:12]} {commit}" in done.stdout
    params = project.root / "outputs/reproduce/1.yaml"
    made_with = yaml.safe_load((project.root / "params.yaml").read_text())
    assert yaml.safe_load(params.read_text())["train"] == made_with["train"]
    assert "CAUTION" not in done.stdout
