"""The commands that reproduce a registered version, after checking that all it was made from can be had."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from cinetune import params as params_module
from cinetune.errors import InputError, reason_of
from cinetune.tracking import registry

FOLDER = Path("outputs/reproduce")
# What `dvc add` put under control: what it is called, the parameter that names it, and where its hash is kept.
TRACKED = (("the data", ("data", "root"), "dvc.data"), ("the base model", ("model", "base"), "dvc.base-model"))


def commands(uri: str) -> tuple[list[str], list[str]]:
    """What was found, as comments, and the commands. Raises InputError for the first thing that cannot be had."""
    name, version = registry.resolve(uri)
    with tempfile.TemporaryDirectory() as scratch:
        origin = registry.read_origin(name, version, Path(scratch))
        fetched = registry.fetch_artifact(name, version, "artifacts/params.yaml", Path(scratch))
        params = params_module.making(params_module.read_yaml(fetched))
    commit = _check_commit(origin, uri)
    found = [f"# {uri} is version {version} of {name}", f"# commit {commit}: found"]
    if origin.get("git.dirty") == "true":
        found.append("# CAUTION: files had been changed since that commit, so these commands may make another model")
    tracked = []
    for told, (section, key), tag in TRACKED:
        path = params[section][key]
        if tag in origin:
            place = _check_tracked(commit, f"{path}.dvc", origin[tag])
            found.append(f"# {path}.dvc {origin[tag]}: whole in {place}")
            tracked.append(f"{path}.dvc")
        else:
            revision = origin.get("base_revision") if tag == "dvc.base-model" else ""
            at = f" at {revision}" if revision else ""
            found.append(f"# {told}, {path}{at}: not under DVC when the version was made, not checked")
    return found, _commands(origin, commit, tracked, _write_params(name, version, params, origin))


def _check_commit(origin: Mapping[str, str], uri: str) -> str:
    commit = origin.get("git.commit")
    if commit is None:
        raise InputError(f"{uri!r} was registered outside a git repository: its commit is not known.")
    if _git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise InputError(
            f"commit {commit} of {uri!r} is in no repository here: run this in a clone that has it, after `git fetch "
            "--all`."
        )
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


def _write_params(name: str, version: str, params: dict[str, Any], origin: Mapping[str, str]) -> Path:
    """For the loop: a version of the same model, under the licence that was accepted for it."""
    licence = {"accept_licence": origin["licence"]} if "licence" in origin else {}
    target = FOLDER / f"{version}.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    content = {**params, "register": {"name": name, **licence}}
    target.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return target


def _commands(origin: Mapping[str, str], commit: str, tracked: Sequence[str], params: Path) -> list[str]:
    folder = f"../cinetune-{commit[:12]}"
    pulled = [f"dvc pull {' '.join(tracked)}"] if tracked else []
    return [
        f"git worktree add {folder} {commit}",
        f"cp {params} {folder}/reproduced.yaml",
        f"cd {folder}",
        *pulled,
        "mlflow run . --env-manager local -P params=reproduced.yaml",
        f"# the adapter that this makes must have the digest {origin['adapter_digest']} on a like machine",
    ]


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else None
