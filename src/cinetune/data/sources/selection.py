"""Which questions a folder holds, and its card: those of the new sources, never fewer than before unless asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from cinetune.data.intake import ClipRequest, Intake, keep_only
from cinetune.data.sources import hub
from cinetune.errors import InputError
from cinetune.files import move_whole, write_whole
from cinetune.params import DownloadParams
from cinetune.task import data_card
from cinetune.task.data_card import DataCard
from cinetune.task.description import CINEPILE

Key = tuple[str, str]


def card_of(params: DownloadParams) -> DataCard:
    """The card of what is to be downloaded, without rows."""
    if params.questions in hub.VERSIONS:
        return DataCard(f"{CINEPILE.name}-{params.questions}", params.questions, params.revision, CINEPILE.licence)
    return DataCard()


def place(
    intake: Intake, clips: Iterable[ClipRequest], new: Path, folder: Path, about: DataCard, is_told: bool
) -> None:
    """Move the questions files of `new` to <folder>/questions, with the rows of these clips and of those there before.

    A split without new questions stays as it is. Raises InputError, before anything is changed, where a question that
    is there would go, or the folder holds other data than the new ones are `about`, and that was not asked for
    (`is_told`).
    """
    splits = [split for split, asked in intake.questions.items() if asked]
    if not splits:
        return
    _check_source(folder, about, is_told)
    masks = {}
    for split in splits:
        path = folder / "questions" / f"{split}.parquet"
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
        move_whole(new / f"{split}.parquet", folder / "questions" / f"{split}.parquet")
    _write_card(folder, about, splits)


def _check_source(folder: Path, new: DataCard, is_told: bool) -> None:
    """Raises InputError where the folder holds other data than the new ones, and these are not to take their place."""
    old = data_card.read(folder)
    if old is not None and old.source != new.source and not is_told:
        raise InputError(
            f"{str(folder)!r} holds questions of {old.source}, not of {new.source}: pass -P replace=true to have the "
            "new ones in their place, or -P data_dir=<another folder>."
        )


def _write_card(folder: Path, card: DataCard, splits: Collection[str]) -> None:
    """The card of the questions that are in the folder now, of which these splits are new.

    Questions of other data, whose place the new ones take, go.
    """
    old = data_card.read(folder)
    paths = {path.stem: path for path in sorted((folder / "questions").glob("*.parquet"))}
    if old is not None and old.source != card.source:
        for split in paths.keys() - set(splits):
            paths.pop(split).unlink()
    rows = {split: pyarrow.parquet.read_metadata(path).num_rows for split, path in paths.items()}
    content = json.dumps(asdict(card) | {"rows": rows}, indent=2) + "\n"
    write_whole(folder / data_card.CARD, content.encode())


def _keys(path: Path) -> list[Key]:
    """Clip and question of each row."""
    try:
        table = pyarrow.parquet.read_table(path, columns=["clip_id", "question"])
    except (pa.ArrowException, OSError):
        raise InputError(f"{str(path)!r} is damaged: remove it, and it is written again.") from None
    return list(zip(table["clip_id"].to_pylist(), table["question"].to_pylist(), strict=True))
