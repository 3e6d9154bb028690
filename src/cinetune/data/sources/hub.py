"""The dataset on the Hugging Face hub: the Parquet files of one version and split at one commit."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cinetune.data.sources import formats
from cinetune.data.sources.formats import Row
from cinetune.errors import InputError, of_hub

NAME = "tomg-group-umd/cinepile"
VERSIONS = ("v1", "v2")
# A version is a config of its name; v1 was there first and is called "default", also where v2 is what the hub gives
# to those who name none.
FIRST_VERSION = {"v1": "default"}
CARD = "README.md"


def rows(version: str, revision: str, split: str) -> Iterator[Row]:
    """Raises InputError for a version that the commit does not have, and for each fault of the hub with its remedy."""
    if not revision:
        raise InputError("download.revision is empty: name the commit of the hub's dataset, its rows change.")
    for path in _fetch(version, revision, split):
        yield from formats.parquet_rows(path)


def _fetch(version: str, revision: str, split: str) -> list[Path]:
    from huggingface_hub import HfApi, metadata_load

    api = HfApi()
    with _remedies(version, revision):
        names = api.list_repo_files(NAME, repo_type="dataset", revision=revision)
        card: Mapping[str, Any] = {}
        if CARD in names:
            path = api.hf_hub_download(NAME, CARD, repo_type="dataset", revision=revision)
            card = metadata_load(path) or {}
        files = files_of(version, split, names, card.get("configs") or [])
        if not files:
            raise InputError(
                f"commit {revision!r} of {NAME} holds no Parquet files of the {split} questions of {version}: name a "
                "commit that does (on its page under Files, History), or another version."
            )
        return [Path(api.hf_hub_download(NAME, name, repo_type="dataset", revision=revision)) for name in files]


def files_of(version: str, split: str, names: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which of a commit's files hold a version's split, as its card says; none where it has no such version.

    Without a word in the card v1 lies in data/, any other version in a folder of its name.
    """
    by_name = {config.get("config_name", "default"): config for config in configs}
    config = by_name.get(version) or by_name.get(FIRST_VERSION.get(version, ""))
    if configs and config is None:
        return []
    given = (config or {}).get("data_files")
    folder = (config or {}).get("data_dir") or ("data" if version in FIRST_VERSION else version)
    patterns = [f"{folder}/{split}*"] if given is None else _patterns(given, split)
    found = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    return sorted(name for name in found if name.endswith(".parquet"))


def _patterns(data_files: Any, split: str) -> list[str]:
    entries = data_files if isinstance(data_files, list) else []
    paths = [entry.get("path", []) for entry in entries if isinstance(entry, dict) and entry.get("split") == split]
    return [pattern for path in paths for pattern in ([path] if isinstance(path, str) else path)]


@contextmanager
def _remedies(version: str, revision: str) -> Iterator[None]:
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except InputError:
        raise
    except (HTTPError, OSError, ValueError, yaml.YAMLError) as error:
        what = f"questions {version!r} cannot be loaded from {NAME}"
        raise of_hub(error, what, f"datasets/{NAME}", revision) from None
