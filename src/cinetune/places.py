"""Where a version finds its base model and the clips that it serves, and whether the base is the right one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from cinetune import model
from cinetune.errors import InputError
from cinetune.params import ModelParams

BASE_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors")


def find_base(params: ModelParams, root: str) -> Path:
    """The folder of a version's base model.

    CINETUNE_BASE_MODEL (a folder or a hub id) comes before what the params say. A relative folder is looked
    for under CINETUNE_ROOT, the current directory and `root`, the project's folder when it was logged.
    """
    override = os.environ.get("CINETUNE_BASE_MODEL")
    wanted = replace(params, base=override, revision="") if override else params
    for folder in _places(wanted.base, root):
        if folder.is_dir():
            return folder
    try:
        model.check_base(wanted.base)
    except InputError:
        raise InputError(
            f"base model {wanted.base!r} is not there: start the server in the project's root after "
            "`dvc pull base-model.dvc`, or set CINETUNE_BASE_MODEL to its folder."
        ) from None
    try:
        patterns = ["*.json", "*.safetensors", "*.model"]
        return Path(snapshot_download(wanted.base, revision=wanted.revision or None, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"base model {wanted.base!r} cannot be fetched from the hub: {reason}") from None


def base_digest(folder: Path) -> str:
    """sha256 over the names and contents of a base's configuration, tokenizer and weights."""
    total = hashlib.sha256()
    for path in base_files(folder):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def base_files(folder: Path) -> list[Path]:
    """What is loaded of a base, and nothing else that may lie beside it."""
    return sorted({path for pattern in BASE_FILES for path in folder.glob(pattern)})


def find_clips(config: Mapping[str, Any]) -> Path:
    """CINETUNE_CLIPS, or what the version names, looked for like its base."""
    override = os.environ.get("CINETUNE_CLIPS")
    places = [Path(override)] if override else _places(config["clips"], config["root"])
    return next((place for place in places if place.is_dir()), places[0])


def _places(name: str, root: str) -> list[Path]:
    """Where a folder that is named relative to the project may be; one place for an absolute name."""
    return [Path(start).absolute() / name for start in (os.environ.get("CINETUNE_ROOT"), ".", root) if start]
