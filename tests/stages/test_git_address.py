"""The project run by its git address, from a folder that has none of it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.projects import Project, add_inputs, environment, make_project

pytestmark = [pytest.mark.experience, pytest.mark.slow]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a repository with data and base model in its embedded store, served on loopback."""
    if not shutil.which("git-daemon", path=subprocess.check_output(["git", "--exec-path"], text=True).strip()):
        pytest.skip("git has no daemon here")
    project = make_project(tmp_path / "start")
    add_inputs(project)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (
        [sys.executable, "-m", "dvc", "add", "-q", "data", "base-model"],
        [sys.executable, "-m", "dvc", "push", "-q"],
        ["git", "add", "-A"],
        ["git", *identity, "commit", "-q", "-m", "Pin data and base model"],
        ["git", "clone", "-q", "--bare", ".", str(tmp_path / "served/project.git")],
    ):
        done = project.run(command)
        assert done.returncode == 0, done.stderr
    shutil.rmtree(project.root)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = [f"--base-path={tmp_path / 'served'}", "--export-all", "--listen=127.0.0.1", f"--port={port}"]
    daemon = subprocess.Popen(["git", "daemon", *served], env=environment(), start_new_session=True)
    try:
        until = time.monotonic() + 30
        while not answers(port) and time.monotonic() < until:
            time.sleep(0.1)
        yield f"git://127.0.0.1:{port}/project.git"
    finally:
        daemon.terminate()
        daemon.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.nightly
def test_a_git_address_is_run_from_another_folder_and_ends_with_a_version(address: str, tmp_path: Path) -> None:
    elsewhere = Project(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    command = [sys.executable, "-m", "mlflow", "run", address, "--env-manager", "local"]
    done = elsewhere.run(command, timeout_s=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "register: version 1 of cinepile-video-llava, champion is 1" in done.stdout
    assert {(stage, status) for stage, status, _ in elsewhere.runs()} >= {
        ("main", "FINISHED"),
        ("register", "FINISHED"),
    }
