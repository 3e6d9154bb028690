"""Where a version finds its base model, and whether it is the right one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cinetune.errors import InputError, of_hub
from cinetune.files import cached_digests, text_digest
from cinetune.params import ModelParams

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
CONFIG_FILES = ("config.json", "generation_config.json", "*processor_config.json")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# What the digest of versions up to 0.2 covered.
FORMER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors")


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
    from huggingface_hub.errors import HTTPError

    try:
        patterns = ["*.json", "*.safetensors", "*.model"]
        return Path(snapshot_download(params.base, revision=params.revision or None, allow_patterns=patterns))
    except (HTTPError, OSError, ValueError) as error:
        raise of_hub_base(params, error) from None


def of_hub_base(params: ModelParams, error: BaseException) -> InputError:
    """What asking the hub for a base ended in, with its remedy."""
    return of_hub(error, f"base model {params.base!r} cannot be loaded from the hub", params.base, params.revision)


def base_digest(folder: Path) -> str:
    """sha256 over the names and contents of a base's configuration, tokenizer and weights."""
    return _digest(base_files(folder))


def has_digest(folder: Path, digest: str) -> bool:
    """Whether that is a base's digest, as it is now or as versions up to 0.2 recorded it."""
    return digest == base_digest(folder) or digest == _digest(_matching(folder, FORMER_FILES))


def _digest(files: Iterable[Path]) -> str:
    with cached_digests() as digest_of:
        return text_digest("".join(f"{path.name} {digest_of(path)}\n" for path in files))


def base_files(folder: Path) -> list[Path]:
    """What is loaded of a base, and nothing else that may lie beside it. Raises InputError where a part is missing."""
    return sorted([*_matching(folder, (*CONFIG_FILES, *TOKENIZER_FILES)), *weights_files(folder)])


def weights_files(folder: Path) -> list[Path]:
    """A base's weights as they are loaded: one file, or an index and the shards that it names.

    Raises InputError for an index that is none, or that names a shard which is not there.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [path for path in (folder / WEIGHTS,) if path.is_file()]
    try:
        names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"base model {str(folder)!r} has no list of shards in its {INDEX}: fetch it again.") from None
    # What is named is copied and read: nothing outside the folder.
    missing = sorted(name for name in names if Path(name).name != name or not (folder / name).is_file())
    if missing:
        raise InputError(
            f"base model {str(folder)!r} lacks {len(missing)} of {len(names)} shards, first {missing[0]!r}: fetch it "
            "again."
        )
    return [index, *(folder / name for name in sorted(names))]


def measure_base(params: ModelParams) -> dict[str, str]:
    """sha256 of the "base" (configuration and weights) and the "tokenizer" that `load_base` reads.

    Of a base from the hub also its "commit". Raises InputError for what is no base model.
    """
    check_base(params.base)
    folder = folder_of(params)
    commit = commit_of(params, folder)
    return measure(folder) | ({"commit": commit} if commit else {})


def commit_of(params: ModelParams, folder: Path) -> str:
    """The commit that a folder of the hub's cache holds; empty for a base that is not from there."""
    return folder.name if is_hub_id(params.base) and folder.parent.name == "snapshots" else ""


def folder_of(params: ModelParams) -> Path:
    """Where a base's files are, those of the hub after they were fetched."""
    return _fetch(params) if is_hub_id(params.base) else Path(params.base)


def measure(folder: Path) -> dict[str, str]:
    """The same of a folder."""
    files = {
        "base": sorted([*_matching(folder, CONFIG_FILES), *weights_files(folder)]),
        "tokenizer": _matching(folder, TOKENIZER_FILES),
    }
    with cached_digests() as digest_of:
        return {
            name: text_digest("".join(f"{path.name} {digest_of(path)}\n" for path in paths))
            for name, paths in files.items()
        }


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def candidate_folders(name: str, root: str) -> list[Path]:
    """Where a folder that is named relative to the project may be; one place for an absolute name."""
    return [Path(start).absolute() / name for start in (os.environ.get("CINETUNE_ROOT"), ".", root) if start]
