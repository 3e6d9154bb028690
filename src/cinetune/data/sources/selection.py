"""Which questions a folder holds: those of the new sources, and never fewer than before unless that was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from cinetune.data.intake import ClipRequest, Intake, keep_only
from cinetune.errors import InputError
from cinetune.files import move_whole

Key = tuple[str, str]


def place(intake: Intake, clips: Iterable[ClipRequest], new: Path, folder: Path, is_told: bool) -> None:
    """Move the questions files of `new` to `folder`, with the rows of these clips and of those that were there before.

    A split without new questions stays as it is. Raises InputError, before anything is changed, where a question that
    is there would go and that was not asked for (`is_told`).
    """
    splits = [split for split, asked in intake.questions.items() if asked]
    masks = {}
    for split in splits:
        path = folder / f"{split}.parquet"
        keys = _keys(new / path.name)
        before = _keys(path) if path.is_file() and not is_told else []
        lost = set(before) - set(keys)
        if lost:
            clip_id, question = min(lost)
            raise InputError(
                f"{str(path)!r} has {len(lost)} questions that the new {split} questions lack, one is {question!r} "
                f"about clip {clip_id!r}: pass -P replace=true to drop them, or -P data_dir=<another folder>."
            )
        kept = {clip.clip_id for clip in clips} | {clip_id for clip_id, _ in before}
        masks[split] = [clip_id in kept for clip_id, _ in keys]
    for split, mask in masks.items():
        if not all(mask):
            keep_only(new / f"{split}.parquet", mask)
    for split in splits:
        move_whole(new / f"{split}.parquet", folder / f"{split}.parquet")


def _keys(path: Path) -> list[Key]:
    """Clip and question of each row."""
    try:
        table = pyarrow.parquet.read_table(path, columns=["clip_id", "question"])
    except (pa.ArrowException, OSError):
        raise InputError(f"{str(path)!r} is damaged: remove it, and it is written again.") from None
    return list(zip(table["clip_id"].to_pylist(), table["question"].to_pylist(), strict=True))
