"""MLflow's model registry: versions known by the digest of their adapter, and their aliases."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from cinetune.errors import InputError
from cinetune.task import prompts
from cinetune.task.description import Task
from cinetune.tracking.queries import fetch
from cinetune.tracking.store import deferred_signals, file_of_store, open_store, reaching, store_errors
from cinetune.tracking.ui import NOTE_TAG

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# A logged model's parameter and, on versions of earlier releases, their tag: sha256 of the adapter's files.
DIGEST = "adapter_digest"
# Another of a logged model's: whether it brings its base.
EMBEDS_BASE = "embeds_base"
LOGGED = "models:/"
PROMPT_HASH = "prompt.hash"
ADDRESS = r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))"
# In a version: what it was made from, and what it answered.
ORIGIN, EVALUATION = "artifacts/origin.json", "artifacts/evaluation"


@contextmanager
def one_registration() -> Iterator[None]:
    """Holds the registry for the block: of a store that is a file for everyone, of a server in this folder."""
    lock = file_of_store() or Path("outputs/registry")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{lock}.register.lock"):
        yield


def check_data(name: str, data: str) -> None:
    """Raises InputError for a model whose versions were trained on other data: its champion is judged on that alone."""
    held = {version.tags["data"] for version in _versions(name) if "data" in version.tags}
    if held and data not in held:
        own = re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-")
        raise InputError(
            f"model {name!r} is of {' and '.join(sorted(held))}, and a champion is compared on the same questions: "
            f"give versions trained on {data!r} a model of their own, as in register.name={own}-video-llava."
        )


def told(uri: str) -> dict[str, str]:
    """What stands behind an address, for those who serve it: model, version, data, accuracy, base.

    Only what the registry tells; of an address that is not the registry's the address alone.
    """
    if not re.fullmatch(ADDRESS, uri):
        return {"model": uri}
    name, version = resolve(uri)
    with reaching(f"version {version} of {name!r} cannot be read"):
        found = open_store().get_model_version(name, version)
        kept = {key: found.tags[key] for key in ("data", "accuracy") if key in found.tags}
        with suppress(*store_errors()):
            kept["base"] = open_store().get_logged_model(found.source.removeprefix(LOGGED)).params["base"]
    return {"model": name, "version": version, **kept}


def versions_of(name: str, digest: str, embeds_base: bool = False) -> list[str]:
    """Versions of the adapter with this digest, oldest first; with `embeds_base` those alone that bring their base."""
    wanted = {DIGEST: digest} | ({EMBEDS_BASE: str(True)} if embeds_base else {})
    return [str(version.version) for version in _versions(name) if wanted.items() <= _facts_of(version).items()]


def version_of(name: str, digest: str, embeds_base: bool = False) -> str | None:
    """The newest of `versions_of`."""
    return next(reversed(versions_of(name, digest, embeds_base)), None)


def numbers(name: str) -> list[str]:
    """All versions of a model, oldest first; none where there is no such model."""
    return [str(version.version) for version in _versions(name)]


def _versions(name: str) -> list[ModelVersion]:
    with reaching():
        found = open_store().search_model_versions(f"name = '{name}'")
    return sorted(found, key=lambda version: int(version.version))


def _facts_of(version: ModelVersion) -> Mapping[str, str]:
    """What its logged model says, or the tags of a version of an earlier release."""
    if DIGEST in version.tags or not str(version.source).startswith(LOGGED):
        return version.tags
    # Of a version whose model was deleted nothing is left to be served.
    with suppress(*store_errors()):
        return open_store().get_logged_model(version.source.removeprefix(LOGGED)).params
    return {}


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


def create_version(name: str, model_uri: str, digest: str, embeds_base: bool, tags: Mapping[str, str]) -> str:
    """A version of a logged model, described as that is.

    Where another machine made such a one of the same adapter in the meantime, that one.
    """
    import mlflow

    with reaching(), deferred_signals():
        made = mlflow.register_model(model_uri, name, await_registration_for=60, tags=dict(tags))
        logged = open_store().get_logged_model(model_uri.removeprefix(LOGGED))
        open_store().update_model_version(name, made.version, logged.tags[NOTE_TAG])
        first = next(iter(versions_of(name, digest, embeds_base)), str(made.version))
        if first != str(made.version):
            open_store().delete_model_version(name, made.version)
        return first


def register_prompt(name: str, model_uri: str, task: Task) -> str:
    """The version in the prompt registry of a task's template, linked to a logged model that was made with it.

    A template whose hash has a version already gets no second one.
    """
    prompt, digest = f"{name}-prompt", prompts.template_hash(task)
    # Places as the registry writes them: {{option_A}} for {option A}.
    places = re.compile(r"\{([^{}]+)\}")
    texts = {
        key: places.sub(lambda place: f"{{{{{place[1].replace(' ', '_')}}}}}", text)
        for key, text in prompts.template(task).items()
    }
    with reaching(), deferred_signals():
        client = open_store()
        known = client.search_prompt_versions(prompt) if client.get_prompt(prompt) else []
        found = next((held for held in known if held.tags.get(PROMPT_HASH) == digest), None)
        if found is None:
            # Of questions without options.
            others = {"open_suffix": texts.pop("open_suffix")}
            tags = {PROMPT_HASH: digest, **others}
            found = client.register_prompt(prompt, "".join(texts.values()), f"The template of hash {digest}", tags)
        client.link_prompt_version_to_model(prompt, str(found.version), model_uri.removeprefix(LOGGED))
        return f"{prompt}/{found.version}"


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
    found = re.fullmatch(ADDRESS, uri)
    if found is None:
        raise InputError(f"{uri!r} names no version: write models:/<name>@<alias> or models:/<name>/<version>.")
    name, alias, version = found.groups()
    version = version or aliases(name).get(alias)
    if version is None:
        raise InputError(f"model {name!r} has no {alias}: register one first.")
    return name, version


def pinned(uri: str) -> str:
    """The address of one version, where an alias may come to name another."""
    return "models:/{}/{}".format(*resolve(uri)) if "@" in uri else uri


def fetch_artifact(name: str, version: str, path: str, target: Path) -> Path:
    """A file of a version's own model, downloaded under `target`."""
    return fetch(f"models:/{name}/{version}/{path}", target)


def fetch_evaluation(name: str, version: str, target: Path) -> Path:
    """The folder with what a version answered when it was registered. Raises InputError where it is gone."""
    try:
        return fetch_artifact(name, version, EVALUATION, target)
    except InputError:
        # Earlier releases kept it with the run that registered the version.
        with reaching(f"version {version} of {name!r} cannot be read"):
            run_id = open_store().get_model_version(name, version).run_id
        return fetch(f"runs:/{run_id}/evaluation", target)


def read_origin(name: str, version: str, scratch: Path) -> dict[str, str]:
    """What a version was made from: as the version holds it, else the tags of a version of an earlier release."""
    tags = version_tags(name, version)
    if DIGEST in tags:
        return tags
    found: dict[str, str] = json.loads(fetch_artifact(name, version, ORIGIN, scratch).read_text(encoding="utf-8"))
    return found


def model_tags(name: str) -> dict[str, str]:
    with reaching(f"model {name!r} cannot be read"):
        return dict(open_store().get_registered_model(name).tags)


def tag_model(name: str, key: str, value: str) -> None:
    with reaching():
        open_store().set_registered_model_tag(name, key, value)
