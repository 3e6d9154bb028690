"""Two people, two clones: a tracking server on PostgreSQL, artifacts through it, bytes on a shared DVC folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builders.projects import Project, add_inputs, environment, make_project

pytestmark = [pytest.mark.experience, pytest.mark.slow]

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
MODEL = "models:/cinepile-video-llava@champion"
READY_S = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], log: Path, **options: Any) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_for(address: str, log: Path) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"{address} never answered:\n{log.read_text(encoding='utf-8')[-3000:]}")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of a PostgreSQL database on loopback, in a folder of its own."""
    if not BINARIES:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="needs pip install 'cinetune[team]'")
    # PostgreSQL refuses to run as root, and its user cannot look into pytest's own folders.
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="cinetune-postgres-"))
    try:
        if user:
            shutil.chown(folder, "postgres", "postgres")
        here = {**user, "cwd": folder}
        initdb = [BINARIES[-1] / "initdb", "-D", folder / "data", "-U", "mlflow", "--auth", "trust", "-E", "UTF8"]
        subprocess.run([*map(str, initdb), "--no-sync"], check=True, capture_output=True, **here)
        port = free_port()
        settings = ["-p", port, "-h", "127.0.0.1", "-k", folder, "-c", "fsync=off"]
        command = [str(word) for word in (BINARIES[-1] / "postgres", "-D", folder / "data", *settings)]
        with running(command, folder.with_suffix(".log"), **here):
            created = [str(BINARIES[-1] / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow"]
            until = time.monotonic() + READY_S
            while subprocess.run(created, capture_output=True, **here).returncode and time.monotonic() < until:
                time.sleep(0.5)
            yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        shutil.rmtree(folder)
        folder.with_suffix(".log").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def tracking_server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    port, log = free_port(), folder / "log"
    command = ["mlflow", "server", "--backend-store-uri", database, "--serve-artifacts"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    # Workers for jobs that nobody here gives it would take longer to start than the server itself.
    variables = environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running([*command, "--workers", "1"], log, cwd=folder, env=variables):
        wait_for(f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bare git repository with the project, data pinned, and the folder that is its DVC remote."""
    folder = tmp_path_factory.mktemp("shared")
    project = make_project(folder / "start")
    add_inputs(project)
    remote = folder / "dvc"
    for command in (
        ["dvc", "remote", "add", "--default", "team", str(remote)],
        ["dvc", "add", "data", "base-model"],
        ["dvc", "push"],
        ["git", "add", "-A"],
        [*git("commit"), "-q", "-m", "Pin data and base model"],
        ["git", "clone", "-q", "--bare", ".", str(folder / "project.git")],
    ):
        must(project, *command)
    shutil.rmtree(project.root)
    return folder / "project.git", remote


def git(command: str) -> list[str]:
    return ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", command]


def must(project: Project, *command: str, **variables: str) -> str:
    done = project.run(command, **variables)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def clone(repository: Path, target: Path) -> Project:
    subprocess.run(["git", "clone", "-q", str(repository), str(target)], check=True, env=environment())
    project = Project(target)
    must(project, "dvc", "pull", "--quiet", "data.dvc", "base-model.dvc")
    return project


@pytest.mark.nightly
def test_two_clones_share_runs_versions_and_bytes(
    tracking_server: str, shared: tuple[Path, Path], tmp_path: Path
) -> None:
    team = {"MLFLOW_TRACKING_URI": tracking_server, "MLFLOW_EXPERIMENT_NAME": "cinetune"}
    cinetune = [sys.executable, "-m", "cinetune"]

    first = clone(shared[0], tmp_path / "first")
    made = must(first, "mlflow", "run", ".", "--env-manager", "local", **team)
    assert "register: version 1 of cinepile-video-llava, champion is 1" in made
    must(first, "dvc", "push", "--quiet")
    must(first, *git("add"), "dvc.lock")
    must(first, *git("commit"), "-q", "-m", "Lock what was made")
    must(first, "git", "push", "-q")

    second = clone(shared[0], tmp_path / "second")
    must(second, "dvc", "pull", "--quiet")
    unchanged = must(second, *cinetune, "main", **team)
    makers = re.findall(r"^(frames|train|evaluate_base|evaluate_finetuned|report): run (\w+)$", made, re.M)
    assert len(makers) == 5
    for stage, run_id in makers:
        assert f"{stage}: unchanged, skipped; made by run {run_id}" in unchanged
    assert "register: unchanged, skipped; version 1" in unchanged

    must(second, *cinetune, "train", "--max_steps", "2", "--seed", "9", **team)
    [adapter] = (path.relative_to(second.root) for path in second.root.glob("outputs/runs/*/adapter"))
    must(second, *cinetune, "evaluate", "--model", f"runs:/{adapter.parent.name}/adapter", **team)
    [evaluation] = second.root.glob("outputs/runs/*/evaluation/*")
    given = ["--adapter", str(adapter), "--evaluation", str(evaluation.relative_to(second.root))]
    assert "version 2 is challenger and champion" in must(second, *cinetune, "register", *given, "--force", **team)

    # The one who has not trained it serves it.
    answer = ask_server(first, tmp_path / "log", team)
    assert answer["error"] is None and answer["choice"] in "ABCDE"
    assert not (first.root / "mlflow.db").exists() and not (second.root / "mlflow.db").exists()


def ask_server(project: Project, log: Path, team: dict[str, str]) -> dict[str, Any]:
    port = free_port()
    command = [sys.executable, "-m", "cinetune", "serve", MODEL, "--port", str(port)]
    clip = next((project.root / "data/clips").iterdir()).stem
    row = {"video": f"clip:{clip}", "question": "Where?", "choices": ["a", "b", "c", "d", "e"]}
    body = json.dumps({"dataframe_records": [row]}).encode()
    with running(command, log, cwd=project.root, env=environment() | team):
        wait_for(f"http://127.0.0.1:{port}/ping", log)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return dict(json.load(response)["predictions"][0])
