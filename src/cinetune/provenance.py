"""Where things come from: the commit, the hashes that DVC holds, digests of folders."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from cinetune.errors import InputError
from cinetune.files import files_of

PACKAGE = Path(__file__).parent
# DVC writes dvc.lock itself after each run of the pipeline: a change there is a result, not an edit.
WRITTEN_BY_RUNS = ("dvc.lock",)
DVC_CACHE = Path(".dvc/cache/files/md5")


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


def check_complete(path: str | Path, without: str = "") -> None:
    """Raises InputError where files are gone that `<path>.dvc` names, as it is or as it was committed.

    DVC would record what is left instead, each time that a stage which reads the folder is run. without: the name of
    a folder in it that is not needed.
    """
    tracked = Path(f"{path}.dvc")
    if not tracked.is_file():
        return
    written = tracked.read_text(encoding="utf-8")
    named = _files_named(written)
    needed = [name for name in named if not without or not name.startswith(f"{without}/")]
    if not named and not without:
        _check_number(Path(path), tracked, written)
    gone = sorted(name for name in needed if not (Path(path) / name).exists())
    if gone:
        raise InputError(
            f"{str(path)!r} lacks {len(gone)} of the {len(needed)} files that {tracked} names, {gone[0]!r} is one: run "
            f"`dvc pull {tracked}`, or `dvc add {path}` where they are meant to be gone."
        )
    before = _files_named(_git("show", f"HEAD:./{tracked.as_posix()}") or "")
    lost = sorted(before.items() - named.items())
    if lost and named.items() < before.items():
        # As a `dvc repro` by hand leaves it where the folder is not whole.
        pulled = "" if without else f" and `dvc pull {tracked}`"
        raise InputError(
            f"{tracked} names {len(lost)} files fewer than as it was committed and nothing new, {lost[0][0]!r} is one: "
            f"run `git checkout {tracked}`{pulled}, or commit it where they are meant to be gone."
        )


def _check_number(folder: Path, tracked: Path, written: str) -> None:
    """The same without DVC's cache, which alone knows the files' names: by their number."""
    output = ((yaml.safe_load(written) or {}).get("outs") or [{}])[0]
    wanted = int(output.get("nfiles") or 0)
    there = len(files_of(folder)) if folder.is_dir() else 0
    if there < wanted:
        raise InputError(
            f"{str(folder)!r} lacks {wanted - there} of the {wanted} files that {tracked} names: run `dvc pull "
            f"{tracked}`, or `dvc add {folder}` where they are meant to be gone."
        )


def _files_named(tracked: str) -> dict[str, str]:
    """Files of a folder with their hashes, as the text of a .dvc file names them; none where DVC's cache lacks them."""
    outputs = (yaml.safe_load(tracked) or {}).get("outs") or [{}]
    digest = str(outputs[0].get("md5", ""))
    listing = DVC_CACHE / digest[:2] / digest[2:]
    if not digest.endswith(".dir") or not listing.is_file():
        return {}
    entries = json.loads(listing.read_text(encoding="utf-8"))
    return {entry["relpath"]: entry["md5"] for entry in entries}


def check_addable(folder: Path) -> None:
    """Raises InputError where `dvc add` would refuse a folder for the place where it is."""
    root, path = Path.cwd(), folder.absolute()
    reason = ""
    if not Path(".dvc").is_dir():
        reason = "there is no .dvc folder here"
    elif path == root or not path.resolve().is_relative_to(root.resolve()) or folder.is_symlink():
        reason = "it is not below the project's root"
    elif any(Path(f"{parent}.dvc").is_file() for parent in path.parents if root in parent.parents):
        reason = "a folder above it is pinned"
    elif _git("check-ignore", "--quiet", f"{path}.dvc") is not None:
        reason = f"git ignores {path.name}.dvc"
    elif _git("ls-files", "--", str(path)):
        reason = "git tracks files in it"
    if reason:
        raise InputError(f"DVC cannot pin {str(folder)!r}, {reason}: name another folder, or leave pin out.")


def dvc_add(folder: Path) -> None:
    """Put a folder under DVC's control, or its new content. DVC itself shows progress, and the reason if it cannot.

    Raises InputError then.
    """
    command = [sys.executable, "-m", "dvc", "add", str(folder)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise InputError(
            f"DVC cannot pin {str(folder)!r}, for the reason above: the clips are there, `dvc add` it by hand."
        )


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


def code_digest(stage: str, pipeline: Path = Path("dvc.yaml")) -> str:
    """sha256 over the code that decides a DVC stage's bytes: its deps below src/; empty where there is no dvc.yaml."""
    if not pipeline.is_file():
        return ""
    deps = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"][stage]["deps"]
    total = hashlib.sha256()
    for dep in sorted(Path(dep) for dep in deps if dep.startswith("src/")):
        for name, path in [(dep.name, dep)] if dep.is_file() else files_of(dep, "*.py"):
            total.update(f"{dep.as_posix()} {name}\0".encode() + path.read_bytes())
    return total.hexdigest()


def source_digest(*parts: str, package: Path = PACKAGE) -> str:
    """sha256 over the code of this package or of another copy of it, or over that of packages and modules in it."""
    total = hashlib.sha256()
    for part in parts or ("",):
        place = package / part
        for name, path in [(part, place)] if place.is_file() else files_of(place, "*.py"):
            total.update(f"{name}\0".encode() + path.read_bytes())
    return total.hexdigest()


def prompt_code_digest(package: Path = PACKAGE) -> str:
    """sha256 over what puts text into the prompt's template: what it neutralises, and how it shortens subtitles."""
    return source_digest("task/prompts.py", "task/template.py", "model/encoder.py", package=package)
