"""Checkpoints of trainings: only whole ones count, and each training is known by what decides its result.

<root>/<name>/training.json        whose they are: the run's id and what decides the result; written first
<root>/<name>/checkpoint-<step>/   what Hugging Face's Trainer saves, and `complete` once all of it is there
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from cinetune.errors import InputError
from cinetune.files import only_one, write_whole

TRAINING, COMPLETE, LOCK = "training.json", "complete", "lock"


def prepare(
    root: Path, run_id: str, made_by: Mapping[str, str], is_pipeline: bool, is_resumed: bool
) -> tuple[Path, str | None]:
    """The folder of a training's checkpoints below `root`, and the run that it resumes, None for a new training.

    The pipeline resumes by itself whatever made the same; by hand `is_resumed` asks for it, and code may have been
    repaired in between. Raises InputError where there is nothing to resume.
    """
    resumed = None
    if is_pipeline:
        work = root / "pipeline"
        begun = read(work)
        if begun is None or first_difference(begun[1], made_by) is not None:
            shutil.rmtree(work, ignore_errors=True)
        elif last(work) is not None:
            resumed = begun[0]
    elif is_resumed:
        work, resumed = find(root, made_by, may_differ=["code"])
    else:
        work = root / run_id
    begin(work, resumed if resumed and is_resumed and not is_pipeline else run_id, made_by)
    return work, resumed


def begin(work: Path, run_id: str, made_by: Mapping[str, str]) -> None:
    """Name a training before its first step; half-written checkpoints of an earlier process are removed."""
    work.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"run_id": run_id, "made_by": dict(made_by)}, indent=2) + "\n"
    write_whole(work / TRAINING, content.encode())
    for folder in work.glob("checkpoint-*"):
        if not (folder / COMPLETE).is_file():
            shutil.rmtree(folder)


def last(work: Path) -> Path | None:
    """The whole checkpoint with the highest step."""
    whole = [folder for folder in work.glob("checkpoint-*") if (folder / COMPLETE).is_file()]
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def complete(checkpoint: Path, keep: Iterable[Path]) -> None:
    """Declare a checkpoint whole; of the others beside it only those in `keep` stay."""
    (checkpoint / COMPLETE).touch()
    kept = {checkpoint.name, *(folder.name for folder in keep)}
    for folder in checkpoint.parent.glob("checkpoint-*"):
        if folder.name not in kept:
            # Killed in the middle of this, what is left of the folder no longer counts.
            (folder / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(folder)


def discard_unless_saved(work: Path) -> None:
    """Remove a training that ended before its first checkpoint: there is nothing to resume."""
    if last(work) is None:
        shutil.rmtree(work, ignore_errors=True)


def read(work: Path) -> tuple[str, dict[str, str]] | None:
    """The run's id and what decides the result; None where no training was begun."""
    try:
        content = json.loads((work / TRAINING).read_text(encoding="utf-8"))
        return content["run_id"], content["made_by"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find(root: Path, made_by: Mapping[str, str], may_differ: Iterable[str] = ()) -> tuple[Path, str]:
    """The newest training below `root` with this result, and its run; `may_differ`: keys that need not be the same.

    Raises InputError where there is none, with what the newest one differs in.
    """
    begun = sorted(root.glob(f"*/{TRAINING}"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = [(path.parent, content) for path in begun if (content := read(path.parent)) is not None]
    if not found:
        raise InputError(f"there is no training to resume in {str(root)!r}: leave out resume to begin one.")
    refusal = ""
    for work, (run_id, theirs) in found:
        name = first_difference(theirs, made_by, may_differ)
        if name is None:
            return work, run_id
        refusal = refusal or (
            f"the training of run {run_id} cannot be resumed: {name} was {theirs.get(name)}, now it is "
            f"{made_by.get(name)}; restore it, or leave out resume to start over."
        )
    raise InputError(refusal)


def first_difference(one: Mapping[str, str], other: Mapping[str, str], may_differ: Iterable[str] = ()) -> str | None:
    """The first key, by name, whose values differ; None where none does."""
    names = sorted({*one, *other} - {*may_differ})
    return next((name for name in names if one.get(name) != other.get(name)), None)


def held(work: Path) -> AbstractContextManager[None]:
    """One process at a time trains in a folder. Raises InputError where another one does."""
    return only_one(work / LOCK, f"another process trains in {str(work)!r}: wait for its end, or stop it.")
