"""Recipes are complete: their commands exist, and what they would take is told without a hub and without the data."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from builders.projects import ROOT, environment
from builders.refusals import sentence
from cinetune import cli
from cinetune import params as params_module
from cinetune.data import licences
from cinetune.data.mini import cameras
from cinetune.evaluation.published import published
from cinetune.model.sizes import size_of
from cinetune.runtime import cost, distributed
from cinetune.stages import train
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.experience

PROGRAMS = ("git", "mlflow", "python", "make", "sed")
# What each is made for: GPUs, and gigabytes of one.
RECIPES = {
    "cinepile-7b": (1, 80),
    "cinepile-v2-7b": (1, 80),
    "cinepile-7b-24gb": (1, 24),
    "cinepile-7b-multi-gpu": (8, 80),
    "seed": (1, 80),
}


def comment_of(recipe: str) -> list[str]:
    """The lines before the first section."""
    lines = (ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines[: lines.index("data:")]]


def test_every_recipe_is_known_here() -> None:
    there = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert there - {"video2dataset", "cameras"} == set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_begins_with_commands_that_exist_and_with_hours_and_disk(recipe: str) -> None:
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    told, done = comment_of(recipe), []
    for line in told:
        words = shlex.split(line, comments=True) if line.startswith(PROGRAMS) else []
        # A shell would take `<commit>` for a redirection.
        assert not any("<" in word for word in words), line
        if words[:2] == ["mlflow", "run"]:
            entry = words[words.index("-e") + 1] if "-e" in words else "main"
            given = dict(words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "-P")
            assert set(given) <= set(project[entry]["parameters"])
            assert given["params"] == "mine.yaml"
            done.append(entry)
        elif words[:3] == ["python", "-m", "cinetune"]:
            assert words[3] in cli.commands() and words[-1] == "mine.yaml"
            done.append(" ".join(words[3:5]))
        done += ["sed"] * (words[:1] == ["sed"])
        done += [words[n + 1] for n, word in enumerate(words) if word == "make"]
    assert done == ["pull", "sed", "download", "train --dry-run", "main", "serve"]
    assert {"pull", "serve"} <= set(targets)
    text = " ".join(told)
    assert "Disk, an estimate" in text and "Hours, an estimate" in text


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_copy_that_a_recipe_says_how_to_make_is_the_same_with_the_licence_accepted(
    recipe: str, tmp_path: Path
) -> None:
    line = next(line for line in comment_of(recipe) if line.startswith("sed "))
    made = tmp_path / "mine.yaml"
    subprocess.run(["bash", "-c", line.replace("mine.yaml", str(made))], cwd=ROOT, check=True)
    original, copy = (
        params_module.load_over(path, ROOT / "params.yaml") for path in (ROOT / f"recipes/{recipe}.yaml", made)
    )
    assert licences.of_data(copy.data.name, copy.register.accept_licence) == CINEPILE.licence
    assert copy == original.override("register", {"accept_licence": CINEPILE.licence})


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_registers_a_model_of_its_own_data_and_serves_that(recipe: str) -> None:
    chosen = params_module.load_over(ROOT / "recipes" / f"{recipe}.yaml", ROOT / "params.yaml")
    assert chosen.register.name == f"{chosen.data.name.lower()}-video-llava"
    assert f"make serve MODEL=models:/{chosen.register.name}@champion" in comment_of(recipe)
    assert chosen.predict.model == f"models:/{chosen.register.name}@champion"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_dry_run_needs_no_hub_and_no_data_and_its_plan_fits_the_gpus(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a dry run asks nobody"))
    assert train.main(["--dry-run", "--params", str(ROOT / "recipes" / f"{recipe}.yaml")]) == 0
    told = capsys.readouterr().out
    gpus, gigabytes = RECIPES[recipe]
    assert float(re.search(r"^memory +about ([\d.]+) GB", told, re.M)[1]) < 0.8 * gigabytes
    hours = re.search(rf"([\d.]+) hours on {gpus} H100", told)[1]
    assert f"{float(hours):.2g} to train on" in " ".join(comment_of(recipe))
    chosen = params_module.load_over(ROOT / f"recipes/{recipe}.yaml", ROOT / "params.yaml")
    share = f"processes {gpus}, each with {chosen.train.clips_per_step // gpus} packs a step; "
    # One length stands in for all, which says nothing of waiting.
    assert ((share + "packs are equally long here") in told) is (gpus > 1)
    root = chosen.data.root
    assert f"note      {root!r} holds no questions yet: as many as CinePile v1 trains on" in told
    assert not (tmp_path / "outputs").exists() and not (tmp_path / "mlflow.db").exists()


def test_data_that_nothing_can_stand_in_for_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {name: Ours, root: ours}\nmodel: {base: nobody/Video-LLaVA}\n")
    monkeypatch.chdir(tmp_path)
    said = sentence(lambda: train.main(["--dry-run", "--params", "mine.yaml"]))
    assert "ours/questions/train.parquet does not exist" in said


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_on_cinepile_only_for_those_who_know_its_licence(recipe: str) -> None:
    loaded = params_module.load_over(ROOT / "recipes" / f"{recipe}.yaml", ROOT / "params.yaml")
    assert "register.accept_licence" in sentence(
        lambda: licences.of_data(loaded.data.name, loaded.register.accept_licence)
    )
    assert loaded.train.clips_per_step % loaded.train.processes == 0 and distributed.count() == 1
    assert loaded.data.root == loaded.download.data_dir


def test_activations_that_are_computed_again_take_half_the_time_more() -> None:
    """Frozen weights: there and back are two products, there again is a third."""
    seed = params_module.load_over(ROOT / "recipes/seed.yaml", ROOT / "params.yaml")
    config, _, _ = cost.base_shape(seed.model)
    plan, size = cost.published_plan(seed, config).plan, size_of(config, 8)
    kept, again = (
        cost.estimate(plan, size, seed.override("train", {"activation_checkpointing": wanted})).flops
        for wanted in ("none", "all")
    )
    assert again == pytest.approx(1.5 * kept)


def test_the_second_example_needs_nothing_but_the_base_and_is_registered_by_its_own_name() -> None:
    chosen = params_module.load_over(ROOT / "recipes/cameras.yaml", ROOT / "params.yaml")
    assert chosen.mini.task == "cameras" and chosen.model.base == "base-model" and chosen.data.root == "cameras"
    assert chosen.register.name == chosen.predict.model.removeprefix("models:/").removesuffix("@champion")
    told = (ROOT / "recipes/cameras.yaml").read_text(encoding="utf-8")
    assert "python -m cinetune mini --params recipes/cameras.yaml" in told and "make demo TASK=cameras" in told
    assert licences.of_data(chosen.data.name, "", cameras.TASK) == licences.OWN
    assert published(chosen.report.reference, cameras.TASK) is None


def test_the_demo_of_another_task_draws_its_data_first() -> None:
    done = subprocess.run(
        ["make", "-n", "demo", "TASK=cameras"], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    lines = [line.strip() for line in done.stdout.splitlines() if "recipes/cameras.yaml" in line]
    assert lines == [
        "python -m cinetune mini --params recipes/cameras.yaml",
        "mlflow run . --env-manager local -P params=recipes/cameras.yaml",
    ]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_names_one_version_of_the_data_everywhere(recipe: str) -> None:
    """Questions, folder, label, model and the published results that a report shows beside."""
    chosen = params_module.load_over(ROOT / f"recipes/{recipe}.yaml", ROOT / "params.yaml")
    version = chosen.download.questions
    assert version in ("v1", "v2") and chosen.data.name == f"CinePile-{version}"
    assert chosen.report.reference == version
    assert chosen.data.root == chosen.download.data_dir == ("cinepile" if version == "v1" else f"cinepile-{version}")
