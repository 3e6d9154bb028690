"""MLflow's model registry: versions known by the digest of their adapter, and their aliases."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from cinetune.errors import InputError
from cinetune.tracking.queries import fetch
from cinetune.tracking.store import deferred_signals, open_store, reaching, store_errors
from cinetune.tracking.ui import NOTE_TAG

T = TypeVar("T")


def versions(name: str) -> dict[str, str]:
    """Version by `adapter_digest`; of several, the newest."""
    with reaching():
        found = open_store().search_model_versions(f"name = '{name}'")
    found = sorted(found, key=lambda version: int(version.version))
    return {version.tags.get("adapter_digest", ""): str(version.version) for version in found}


def aliases(name: str) -> dict[str, str]:
    """Version by alias; empty where there is no such model."""
    from mlflow.exceptions import MlflowException

    with reaching():
        try:
            found = open_store().get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
    return {alias: str(version) for alias, version in found.items()}


def run_of(uri: str) -> str:
    """The run that registered the version at `models:/<name>@<alias>` or `models:/<name>/<version>`."""
    name, has_alias, alias = uri.removeprefix("models:/").partition("@")
    name, _, number = (name, "", "") if has_alias else name.partition("/")
    if not name or not (alias or number):
        raise InputError(f"{uri!r} names no version: write models:/<name>@<alias> or models:/<name>/<version>.")
    with reaching(f"{uri!r} cannot be found"):
        client = open_store()
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        return str(found.run_id)


def create_version(name: str, model_uri: str, tags: Mapping[str, str]) -> str:
    """A version of a logged model, described as that is."""
    import mlflow

    with reaching(), deferred_signals():
        made = mlflow.register_model(model_uri, name, await_registration_for=60, tags=dict(tags))
        logged = open_store().get_logged_model(model_uri.removeprefix("models:/"))
        open_store().update_model_version(name, made.version, logged.tags[NOTE_TAG])
        return str(made.version)


def describe_model(name: str, text: str) -> None:
    """Create the model if it is missing; an existing description is kept."""
    from mlflow.exceptions import MlflowException

    with reaching():
        client = open_store()
        try:
            known = client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            known = client.create_registered_model(name)
        if not known.description:
            client.update_registered_model(name, text)


def set_alias(name: str, alias: str, version: str) -> None:
    with reaching():
        open_store().set_registered_model_alias(name, alias, version)


def tag_version(name: str, version: str, key: str, value: str) -> None:
    with reaching():
        open_store().set_model_version_tag(name, version, key, value)


def version_tags(name: str, version: str) -> dict[str, str]:
    """Raises InputError where there is no such version."""
    with reaching(f"version {version} of {name!r} cannot be read"):
        return dict(open_store().get_model_version(name, version).tags)


def resolve(uri: str) -> tuple[str, str]:
    """Name and version of `models:/<name>@<alias>` or `models:/<name>/<version>`.

    Raises InputError for another text and where there is no such alias.
    """
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", uri)
    if found is None:
        raise InputError(f"{uri!r} names no version: write models:/<name>@<alias> or models:/<name>/<version>.")
    name, alias, version = found.groups()
    version = version or aliases(name).get(alias)
    if version is None:
        raise InputError(f"model {name!r} has no {alias}: register one first.")
    return name, version


def fetch_artifact(name: str, version: str, path: str, target: Path) -> Path:
    """A file of a version's own model, downloaded under `target`."""
    return fetch(f"models:/{name}/{version}/{path}", target)


def read_artifact(name: str, version: str, path: str, read: Callable[[Path], T]) -> T | None:
    """An artifact of the run that a version came from; None where it is gone."""
    try:
        run_id = open_store().get_model_version(name, version).run_id
        with tempfile.TemporaryDirectory() as scratch:
            return read(Path(open_store().download_artifacts(run_id, path, scratch)))
    except store_errors():
        return None
