"""The commands that reproduce a registered version, after checking that all it was made from can be had."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from cinetune.errors import InputError, reason_of
from cinetune.tracking import registry

FOLDER = Path("outputs/reproduce")
# What `dvc add` put under control, and the tag that holds its hash.
TRACKED = {"data.dvc": "dvc.data", "base-model.dvc": "dvc.base-model"}


def commands(uri: str) -> tuple[list[str], list[str]]:
    """What was found, as comments, and the commands. Raises InputError for the first thing that cannot be had."""
    name, version = registry.resolve(uri)
    tags = registry.version_tags(name, version)
    commit = _check_commit(tags, uri)
    tracked = {path: _check_tracked(commit, path, tags[tag]) for path, tag in TRACKED.items() if tag in tags}
    params = _write_params(name, version)
    return _found(uri, name, version, tags, tracked), _commands(tags, commit, list(tracked), params)


def _check_commit(tags: Mapping[str, str], uri: str) -> str:
    commit = tags.get("git.commit")
    if commit is None:
        raise InputError(f"{uri!r} was registered outside a git repository: its commit is not known.")
    if _git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise InputError(f"commit {commit} of {uri!r} is not in this repository: fetch it, with `git fetch --all`.")
    return commit


def _check_tracked(commit: str, path: str, wanted: str) -> str:
    """Where DVC has it. The commit must name the same hash, and every file of it must be in one place."""
    content = _git("show", f"{commit}:{path}")
    named = yaml.safe_load(content)["outs"][0]["md5"] if content else None
    if named != wanted:
        raise InputError(
            f"{path} at commit {commit[:12]} names {named}, but the version was made from {wanted}: "
            f"commit the {path} that it was made with."
        )
    from dvc.config import NoRemoteError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_objects.errors import ObjectDBError

    try:
        with Repo(".") as repo:
            stores = {"the cache": repo.cache.local}
            # Without a remote the cache alone decides.
            with suppress(NoRemoteError):
                stores["the remote"] = repo.cloud.get_remote_odb()
            for place, store in stores.items():
                if _has_all(store, wanted):
                    return place
    except (DvcException, ObjectDBError, OSError) as error:
        raise InputError(f"DVC cannot say whether it has {path} ({wanted}): {reason_of(error)}.") from None
    raise InputError(f"{path} ({wanted}) is whole neither in DVC's cache nor in its remote: push it from where it is.")


def _has_all(store: Any, md5: str) -> bool:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    if not store.exists(md5):
        return False
    if not md5.endswith(".dir"):
        return True
    files = {info.value for _, _, info in Tree.load(store, HashInfo("md5", md5))}
    return files <= set(store.oids_exist(files))


def _write_params(name: str, version: str) -> Path:
    found = registry.fetch_artifact(name, version, "artifacts/params.yaml", FOLDER / "fetched")
    target = FOLDER / f"{version}.yaml"
    found.replace(target)
    return target


def _commands(tags: Mapping[str, str], commit: str, tracked: Sequence[str], params: Path) -> list[str]:
    folder = f"../cinetune-{commit[:12]}"
    pulled = [f"dvc pull {' '.join(tracked)}"] if tracked else []
    return [
        f"git worktree add {folder} {commit}",
        f"cp {params} {folder}/reproduced.yaml",
        f"cd {folder}",
        *pulled,
        "mlflow run . --env-manager local -P params=reproduced.yaml",
        f"# the version that this makes must have the tag adapter_digest={tags['adapter_digest']} on a like machine",
    ]


def _found(uri: str, name: str, version: str, tags: Mapping[str, str], tracked: Mapping[str, str]) -> list[str]:
    lines = [f"# {uri} is version {version} of {name}", f"# commit {tags['git.commit']}: found"]
    if tags.get("git.dirty") == "true":
        lines.append("# CAUTION: files had been changed since that commit, so these commands may make another model")
    lines += [f"# {path} {tags[TRACKED[path]]}: whole in {place}" for path, place in tracked.items()]
    if "dvc.base-model" not in tags:
        revision = tags.get("base_revision") or "no fixed revision"
        lines.append(f"# base model {tags.get('base_model')} at {revision}: not under DVC, not checked")
    return lines


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else None
