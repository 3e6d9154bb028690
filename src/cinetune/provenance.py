"""Where things come from: the commit, the hashes that DVC holds, digests of folders."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import yaml

# DVC writes dvc.lock itself after each run of the pipeline: a change there is a result, not an edit.
WRITTEN_BY_RUNS = ("dvc.lock",)


def git_state() -> dict[str, str]:
    """`git.commit`, and `git.dirty` ("true" or "false"); empty outside a git repository."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    excluded = [f":(exclude){name}" for name in WRITTEN_BY_RUNS]
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *excluded)
    return {"git.commit": commit, "git.dirty": str(bool(changes)).lower()}


def _git(*arguments: str) -> str | None:
    try:
        finished = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None


def dvc_hash(path: str | Path) -> str | None:
    """The hash of what `dvc add` put under control as `<path>.dvc`; None where there is no such file."""
    tracked = Path(f"{path}.dvc")
    if not tracked.is_file():
        return None
    outputs = (yaml.safe_load(tracked.read_text(encoding="utf-8")) or {}).get("outs") or [{}]
    return outputs[0].get("md5")


def stage_outputs(lock: Path = Path("dvc.lock")) -> dict[str, str]:
    """Of each stage that DVC has run, the hashes of its outputs as one text."""
    return {
        name: " ".join(f"{output['path']}:{output['md5']}" for output in stage.get("outs", []))
        for name, stage in _locked_stages(lock).items()
    }


def locked_paths(lock: Path = Path("dvc.lock")) -> dict[str, str]:
    """Hashes by path of all that DVC's stages have read and made."""
    stages = _locked_stages(lock).values()
    entries = [entry for stage in stages for kind in ("deps", "outs") for entry in stage.get(kind, [])]
    return {entry["path"]: entry["md5"] for entry in entries}


def _locked_stages(lock: Path) -> dict[str, Any]:
    if not lock.is_file():
        return {}
    return (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages") or {}


def folder_digest(folder: Path) -> str:
    """sha256 over the names and contents of all files of a folder."""
    total = hashlib.sha256()
    for name, path in _files(folder):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()


def _files(folder: Path, pattern: str = "*") -> list[tuple[str, Path]]:
    """A folder's files, the same order on every machine, with their names within it."""
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return [(path.relative_to(folder).as_posix(), path) for path in found]


def source_digest() -> str:
    """sha256 over this package's own code."""
    total = hashlib.sha256()
    for name, path in _files(Path(__file__).parent, "*.py"):
        total.update(f"{name}\0".encode() + path.read_bytes())
    return total.hexdigest()


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def quick_digest(folder: Path) -> str:
    """sha256 over the names, sizes and first megabytes of a folder's files: weights that differ, differ there too."""
    total = hashlib.sha256()
    for name, path in _files(folder):
        with path.open("rb") as file:
            start = hashlib.sha256(file.read(2**20)).hexdigest()
        total.update(f"{name}\0{path.stat().st_size}\0{start}\n".encode())
    return total.hexdigest()


def file_md5(path: Path) -> str:
    """As DVC would hash it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
