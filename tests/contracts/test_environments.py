"""Machines that are not as they should be: each says what to do about it, in one sentence."""

from __future__ import annotations

import compileall
import os
import re
import resource
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow
import pytest

from builders.projects import ROOT, Project, environment, make_project, small_params
from builders.refusals import sentence
from cinetune.stages import main as loop
from cinetune.tracking import lifecycle, store

pytestmark = pytest.mark.experience

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with two clips, and with neither a base model nor frames."""
    from cinetune import params as params_module
    from cinetune.data.mini import dataset

    project = make_project(tmp_path_factory.mktemp("drawn") / "project")
    params = params_module.from_dict(small_params()).override("mini", {"train_films": 1, "test_films": 1})
    dataset.make(project.root / "data", params.mini, workers=1)
    # Python itself would leave half of a .pyc behind where the disk is full.
    compileall.compile_dir(project.root / "src", quiet=1)
    return project


def refused(project: Project, *words: str, before: Sequence[str] = (), most_bytes: int = 0, **variables: str) -> str:
    """What a command says that must end with status 2 and without a trace."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    known = environment() | {"CINETUNE_UNTRACKED": "1"} | variables
    # What measures coverage writes a file of its own, above the limit.
    known.pop("COVERAGE_PROCESS_CONFIG", None)
    done = subprocess.run(
        [*before, sys.executable, "-m", "cinetune", *words],
        cwd=project.root,
        env=known,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limit if most_bytes else None,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    # A progress bar may stand before it and after it.
    [line] = re.findall(r"error: (.*)$", done.stderr, re.M)
    assert line.endswith(".")
    return line


def test_a_full_disk_is_one_sentence_and_leaves_no_half_of_a_file(drawn: Project) -> None:
    said = refused(drawn, "frames", most_bytes=3000)
    assert "no room left on the disk" in said and "free some and run it again" in said
    assert not list(drawn.root.rglob("*.unfinished"))


@pytest.mark.slow
@pytest.mark.nightly
def test_a_disk_that_is_full_when_training_saves_is_one_sentence(
    looped: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = looped
    said = refused(project, "train", "--max_steps", "2", most_bytes=5000)
    assert "no room left on the disk" in said


def test_a_cache_that_may_not_be_written_is_named(drawn: Project) -> None:
    cache = drawn.root / "cache"
    cache.mkdir(mode=0o555)
    # Root may write everywhere until that is taken from it.
    before = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"] if os.geteuid() == 0 else []
    if before and shutil.which("setpriv") is None:
        pytest.skip("root needs setpriv (util-linux) to be refused anything")
    try:
        said = refused(drawn, "frames", "--pipeline", before=before)
    finally:
        cache.chmod(0o755)
        cache.rmdir()
    assert "'cache/frames'" in said and "change its owner or mode" in said


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"HTTPS_PROXY": NOWHERE}, {"HF_HUB_OFFLINE": "1"}], ids=["proxy", "offline"])
def test_a_hub_that_cannot_be_reached_is_one_sentence(
    looped: tuple[Project, subprocess.CompletedProcess[str]], tmp_path: Path, variables: dict[str, str]
) -> None:
    project, _ = looped
    (tmp_path / "hub.yaml").write_text("model: {base: LanguageBind/Video-LLaVA-7B-hf}\n", encoding="utf-8")
    known = {"HF_HOME": str(tmp_path / "empty"), "HF_HUB_OFFLINE": "0"} | variables
    said = refused(project, "train", "--params", str(tmp_path / "hub.yaml"), **known)
    assert "base model 'LanguageBind/Video-LLaVA-7B-hf' cannot be loaded from the hub" in said


# ---- tracking


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """MLFLOW_TRACKING_URI may be set as a test likes."""
    monkeypatch.chdir(tmp_path)
    for name in (*tracking_names(), "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    mlflow.set_tracking_uri(None)


def tracking_names() -> list[str]:
    return [name for name in os.environ if name.startswith(("MLFLOW_", "CINETUNE_"))]


def started() -> None:
    with lifecycle.start("train"):
        pytest.fail("there is no store to write to")


def test_a_tracking_server_that_never_answers_costs_seconds_and_is_named(elsewhere: pytest.MonkeyPatch) -> None:
    elsewhere.setattr(store, "CONNECT_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        mlflow.set_tracking_uri(address)
        elsewhere.setenv("MLFLOW_TRACKING_URI", address)
        said = sentence(started)
    assert address in said and "check MLFLOW_TRACKING_URI" in said and "proxy" not in said.lower()


def test_a_proxy_between_us_and_the_tracking_server_is_told(elsewhere: pytest.MonkeyPatch) -> None:
    elsewhere.setenv("HTTP_PROXY", NOWHERE)
    mlflow.set_tracking_uri("http://tracking.example.org")
    elsewhere.setenv("MLFLOW_TRACKING_URI", "http://tracking.example.org")
    assert "NO_PROXY" in sentence(started)


# ---- one at a time


def test_a_second_loop_in_one_clone_is_refused(bare_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bare_project.root)
    seen = []
    monkeypatch.setattr(loop, "run", lambda params: seen.append(sentence(lambda: loop.main([]))))
    assert loop.main([]) == 0
    assert len(seen) == 1 and "another `main` runs in this folder: wait for its end" in seen[0]


# ---- make setup


# Stands for PYTHON, and for the python of the environments that it makes; `broken` and `offline` are files.
FAKE = """#!/bin/sh
echo "$@" >> calls
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  *"pip check"*) test ! -e broken || { echo mlflow is not installed; exit 1; } ;;
  *"pip install"*) test ! -e offline; exit ;;
  *open_store*) touch mlflow.db ;;
  *) exec %s "$@" ;;
esac
"""
OLD = """#!/bin/sh
exec %s -c 'import sys; sys.version_info = (3, 9, 2); exec(sys.argv[1])' "$2"
"""


def write_program(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content % shlex.quote(sys.executable), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The Makefile in a folder without an environment."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(clone: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    known = environment() | variables
    return subprocess.run(["make", *words], cwd=clone, env=known, capture_output=True, text=True, timeout=60)


def test_an_old_python_is_refused_with_the_remedy(clone: Path) -> None:
    write_program(clone / "old", OLD)
    done = make(clone, "setup", "PYTHON=./old")
    assert done.returncode != 0 and not (clone / ".venv").exists()
    assert "error: ./old is not Python 3.11 or 3.12: name one, as in `make setup PYTHON=python3.11`." in done.stderr


def test_a_broken_environment_is_made_anew_and_a_whole_one_left_alone(clone: Path) -> None:
    write_program(clone / "python", FAKE)
    write_program(clone / ".venv/bin/python", FAKE)
    (clone / ".venv/.ready").touch()
    (clone / ".venv/remains").touch()
    (clone / "broken").touch()
    done = make(clone, "setup", "PYTHON=./python")
    assert done.returncode == 0, done.stderr
    assert "the environment in .venv is broken and is made anew: mlflow is not installed" in done.stdout
    assert (clone / ".venv/.ready").exists() and not (clone / ".venv/remains").exists()
    (clone / "broken").unlink()
    (clone / "calls").unlink()
    assert make(clone, "setup", "PYTHON=./python").returncode == 0
    assert (clone / "calls").read_text(encoding="utf-8") == "-m pip check\n"


def test_other_pins_are_installed_into_a_whole_environment(clone: Path) -> None:
    write_program(clone / "python", FAKE)
    assert make(clone, "setup", "PYTHON=./python").returncode == 0
    (clone / ".venv/mine").touch()
    os.utime(clone / "requirements.lock", (time.time() + 1, time.time() + 1))
    assert make(clone, "setup", "PYTHON=./python").returncode == 0
    calls = (clone / "calls").read_text(encoding="utf-8")
    assert (clone / ".venv/mine").exists() and calls.count("pip install") == 2 and calls.count("-m venv") == 1


def test_packages_that_cannot_be_fetched_are_one_sentence_and_nothing_counts_as_ready(clone: Path) -> None:
    write_program(clone / "python", FAKE)
    (clone / "offline").touch()
    done = make(clone, "setup", "PYTHON=./python")
    assert done.returncode != 0 and not (clone / ".venv/.ready").exists()
    assert "error: packages could not be installed: check the network, the disk, HTTPS_PROXY" in done.stderr


def test_setup_makes_the_store_once_and_none_beside_a_tracking_server(clone: Path) -> None:
    """Several `mlflow run` at once on a missing one would all migrate it."""
    write_program(clone / "python", FAKE)
    assert make(clone, "setup", "PYTHON=./python", MLFLOW_TRACKING_URI=NOWHERE).returncode == 0
    assert not (clone / "mlflow.db").exists()
    for _ in range(2):
        assert make(clone, "setup", "PYTHON=./python").returncode == 0
    assert (clone / "calls").read_text(encoding="utf-8").count("open_store()") == 1


def test_the_ui_beside_a_tracking_server_is_that_servers(clone: Path) -> None:
    write_program(clone / "python", FAKE)
    done = make(clone, "--no-print-directory", "ui", "PYTHON=./python", MLFLOW_TRACKING_URI=NOWHERE)
    assert done.returncode == 0 and done.stdout.strip().endswith(f"which shows them itself: {NOWHERE}")


@pytest.mark.parametrize("address", ["./mlruns", "databricks", "HTTPS://mlflow.example.org", "nonsense://x"])
def test_an_address_that_no_ui_can_show_is_one_sentence(clone: Path, address: str) -> None:
    write_program(clone / "python", FAKE)
    done = make(clone, "--no-print-directory", "ui", "PYTHON=./python", MLFLOW_TRACKING_URI=address)
    assert done.returncode and "error: MLFLOW_TRACKING_URI is neither a server nor a database" in done.stderr


def test_clean_removes_what_can_be_made_again_and_nothing_else(clone: Path) -> None:
    made = ["outputs/adapter/a", "cache/frames/a", "mlruns/0/a", "mlflow.db", "mlflow.db.lock", ".mypy_cache/a"]
    made += [
        "mlflow.db.register.lock",
        ".pytest_cache/a",
        ".ruff_cache/a",
        ".coverage",
        "src/cinetune/__pycache__/a.pyc",
    ]
    kept = [
        "data/clips/a.mp4",
        "base-model/a",
        "cinepile/clips/a.mp4",
        ".dvc/cache/a",
        ".venv/bin/python",
        "params.yaml",
    ]
    kept += ["params.yaml", "src/cinetune/params.py", "tests/test_params.py", "benchmarks/decode.py"]
    for path in (*made, *kept):
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).touch()
    assert make(clone, "clean").returncode == 0
    assert not [path for path in made if (clone / path).exists()]
    assert all((clone / path).exists() for path in kept)
