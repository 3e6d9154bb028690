"""The server's image: what it copies is there, who it runs as, and that its command starts from these files alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders.projects import ROOT

pytestmark = pytest.mark.serving

STEPS = re.findall(r"^([A-Z]+) (.*)$", re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8")), re.M)


def the(kind: str) -> list[str]:
    return [rest for name, rest in STEPS if name == kind]


def copied() -> list[str]:
    words = [[word for word in rest.split() if not word.startswith("--")] for rest in the("COPY")]
    return [source for *sources, _ in words for source in sources]


def test_what_it_copies_is_there_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied()) == kept
    assert all((ROOT / name).exists() for name in copied())


def test_it_ends_as_another_user_than_root_with_the_gateway_as_its_command() -> None:
    names = [name for name, _ in STEPS]
    assert the("USER") == ["cinetune"] and "useradd" in the("RUN")[0]
    assert "RUN" not in names[names.index("USER") :]
    entry = json.loads(the("ENTRYPOINT")[0])
    assert entry[:4] == ["python", "-m", "cinetune", "serve"]
    assert [*entry, *json.loads(the("CMD")[0])][-1] == "models:/cinepile-video-llava@champion"


def test_wheels_without_gpu_are_wanted_and_checked() -> None:
    [install] = [rest for rest in the("RUN") if "pip install" in rest]
    assert '--extra-index-url "$CPU_WHEELS"' in install and "torch.version.cuda" in install
    assert any('test -n "$CPU_WHEELS"' in rest for rest in the("RUN"))


def test_the_package_installs_from_the_copied_files_and_its_command_starts(tmp_path: Path) -> None:
    build, target, home = (tmp_path / name for name in ("build", "target", "home"))
    build.mkdir()
    home.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, build / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, build / name)
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, *install, str(build)], check=True, capture_output=True, timeout=200)
    shutil.copy(ROOT / "params.yaml", home)
    entry = json.loads(the("ENTRYPOINT")[0])
    command = [sys.executable, "-P", *entry[1:], "models:/none@champion"]
    environment = os.environ | {"PYTHONPATH": str(target), "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
    command[command.index("5000")] = "0"
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2, done.stderr
    assert "model 'models:/none@champion' cannot be loaded" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_it_builds_where_there_is_a_builder() -> None:
    wheels = os.environ.get("CPU_WHEELS")
    builder = next((name for name in ("docker", "podman", "buildah") if shutil.which(name)), None)
    if not (wheels and builder) or subprocess.run([builder, "info"], capture_output=True, timeout=60).returncode:
        pytest.skip("needs docker, podman or buildah, and PyTorch's index of CPU wheels in CPU_WHEELS")
    command = [builder, "build", "--quiet", "--build-arg", f"CPU_WHEELS={wheels}", "--tag", "cinetune-serve-test", "."]
    subprocess.run(command, cwd=ROOT, check=True, timeout=1800)
    done = subprocess.run(
        [builder, "run", "--rm", "--entrypoint", "id", "cinetune-serve-test", "-u"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "1000"
