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
from cinetune.errors import InputError, reason_of

NAME = "tomg-group-umd/cinepile"
VERSIONS = ("v1", "v2")
# A version is a config of its name; v1 was there first and is called "default", also where v2 is what the hub gives
# to those who name none.
FIRST_VERSION = {"v1": "default"}
CARD = "README.md"
PAGE = f"https://huggingface.co/datasets/{NAME}"


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
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    try:
        yield
    except InputError:
        raise
    except (HTTPError, OfflineModeIsEnabled, OSError, ValueError, yaml.YAMLError) as error:
        remedy = remedy_of(error, revision)
        raise InputError(f"questions {version!r} cannot be loaded from {NAME}: {remedy}.") from None


def remedy_of(error: BaseException, revision: str) -> str:
    """What is wrong with asking the hub, and what to do about it, as the end of a sentence."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    causes = _causes(error)
    answer = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    status = answer.response.status_code if answer is not None else 0
    is_gated, is_offline = isinstance(answer, GatedRepoError), any(isinstance(c, OfflineModeIsEnabled) for c in causes)
    is_away = answer is None and any(isinstance(cause, HTTPError | ConnectionError | TimeoutError) for cause in causes)
    is_no_commit = isinstance(answer, RevisionNotFoundError) or isinstance(error, HFValidationError)
    remedies = (
        (is_offline, "HF_HUB_OFFLINE is set and the files are not in the cache, unset it or name local files"),
        (is_gated and status == 401, "you are not logged in, run `hf auth login` or set HF_TOKEN"),
        (is_gated, f"your account has not accepted its terms, or the token may not read gated data, see {PAGE}"),
        (is_no_commit, f"there is no commit {revision!r}, copy one from its page under Files, History"),
        (
            isinstance(answer, RepositoryNotFoundError),
            f"the hub does not show it to you, check HF_ENDPOINT and log in with `hf auth login`, see {PAGE}",
        ),
        (
            status == 401,
            "the hub does not accept the token, make a new one and run `hf auth login` or set HF_TOKEN",
        ),
        (status == 403, "the token may not read it, give it read access to gated repositories"),
        (status == 429 or status >= 500, f"the hub is busy (it answered {status}), run it again in some minutes"),
        (is_away, "the hub cannot be reached, check the network, HTTPS_PROXY and HF_ENDPOINT"),
    )
    return next((remedy for applies, remedy in remedies if applies), f"{reason_of(error)}, or name local files")


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
