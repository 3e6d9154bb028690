"""Where a version finds its base model, and whether it is the right one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cinetune.errors import InputError, reason_of
from cinetune.files import cached_digests, file_digest, text_digest
from cinetune.params import ModelParams

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json")
WEIGHTS_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
BASE_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors")


def is_hub_id(name: str) -> bool:
    """Whether a base's name is taken for one on the Hugging Face hub: `owner/name`, and no file or folder here."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def check_base(base: str) -> None:
    """Raises InputError for what is neither a hub id nor the folder of a Video-LLaVA."""
    if is_hub_id(base):
        return
    config = Path(base) / "config.json"
    if not config.is_file():
        remedy = "run `dvc pull base-model.dvc`, or name a hub id or another folder as model.base"
        raise InputError(f"base model {base!r} is not a model folder (it has no config.json): {remedy}.")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        kind = None
    if kind != "video_llava":
        raise InputError(f"base model {base!r} is of type {kind!r}: a folder of type 'video_llava' is needed.")


def find_base(params: ModelParams, root: str) -> Path:
    """The folder of a version's base model.

    CINETUNE_BASE_MODEL (a folder or a hub id) comes before what the params say. A relative folder is looked
    for under CINETUNE_ROOT, the current directory and `root`, the project's folder when it was logged.
    """
    override = os.environ.get("CINETUNE_BASE_MODEL")
    wanted = replace(params, base=override, revision="") if override else params
    for folder in candidate_folders(wanted.base, root):
        if folder.is_dir():
            return folder
    if not is_hub_id(wanted.base):
        raise InputError(
            f"base model {wanted.base!r} is not there: start the server in the project's root after "
            "`dvc pull base-model.dvc`, or set CINETUNE_BASE_MODEL to its folder."
        )
    return _fetch(wanted)


def _fetch(params: ModelParams) -> Path:
    """The folder of a base from the hub."""
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.model"]
        return Path(snapshot_download(params.base, revision=params.revision or None, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise InputError(f"base model {params.base!r} cannot be loaded from the hub: {reason_of(error)}.") from None


def base_digest(folder: Path) -> str:
    """sha256 over the names and contents of a base's configuration, tokenizer and weights."""
    total = hashlib.sha256()
    for path in base_files(folder):
        total.update(f"{path.name} {file_digest(path)}\n".encode())
    return total.hexdigest()


def base_files(folder: Path) -> list[Path]:
    """What is loaded of a base, and nothing else that may lie beside it."""
    return _matching(folder, BASE_FILES)


def measure_base(params: ModelParams) -> dict[str, str]:
    """sha256 of the "base" (configuration and weights) and the "tokenizer" that `load_base` reads.

    Raises InputError for what is no base model.
    """
    check_base(params.base)
    folder = _fetch(params) if is_hub_id(params.base) else Path(params.base)
    patterns = {"base": WEIGHTS_FILES, "tokenizer": TOKENIZER_FILES}
    with cached_digests() as digest_of:
        return {
            name: text_digest("".join(f"{path.name} {digest_of(path)}\n" for path in _matching(folder, chosen)))
            for name, chosen in patterns.items()
        }


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


def candidate_folders(name: str, root: str) -> list[Path]:
    """Where a folder that is named relative to the project may be; one place for an absolute name."""
    return [Path(start).absolute() / name for start in (os.environ.get("CINETUNE_ROOT"), ".", root) if start]
