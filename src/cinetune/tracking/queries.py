"""Read back from MLflow: runs below a run, who made what, artifacts and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cinetune import provenance
from cinetune.artifacts import Adapter
from cinetune.provenance import PACKAGE
from cinetune.tracking.runs import MAX_TAG_CHARS, Run, Tracker
from cinetune.tracking.store import open_store, reaching


def children(run: Tracker) -> dict[str, str]:
    """Ids of the FINISHED runs below a run, by their DVC stage, else their stage."""
    below = f"tags.`mlflow.parentRunId` = '{run.id}' and attributes.status = 'FINISHED'"
    with reaching():
        found = open_store().search_runs([run.experiment_id], below, order_by=["attributes.start_time ASC"])
    return {child.data.tags.get("dvc.stage") or child.data.tags.get("stage", ""): child.info.run_id for child in found}


def maker_of(experiment_id: str, stage: str, outputs: str) -> str | None:
    """The newest FINISHED run of a DVC stage that made these outputs."""
    of_stage = f"tags.`dvc.stage` = '{stage}' and attributes.status = 'FINISHED'"
    with reaching():
        found = open_store().search_runs([experiment_id], of_stage, order_by=["attributes.start_time DESC"])
    same = (run.info.run_id for run in found if run.data.tags.get("dvc.outputs") == outputs[:MAX_TAG_CHARS])
    return next(same, None)


def tag_run(run_id: str, key: str, value: str) -> None:
    with reaching():
        open_store().set_tag(run_id, key, value[:MAX_TAG_CHARS])


def fetch(uri: str, target: Path) -> Path:
    """What a `runs:/` or `models:/` address names, downloaded under `target`."""
    client = open_store()
    from mlflow.artifacts import download_artifacts

    target.mkdir(parents=True, exist_ok=True)
    with reaching(f"{uri!r} cannot be fetched"):
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(target), tracking_uri=client.tracking_uri))


def fetch_code(uri: str, target: Path) -> Path:
    """The package that a registered or logged model, or one in a folder, brings; downloaded under `target`."""
    client = open_store()
    from mlflow.artifacts import download_artifacts

    with reaching(f"model {uri!r} cannot be loaded"):
        place = f"{uri}/code/{PACKAGE.name}"
        if Path(uri).is_dir():
            return Path(place)
        return Path(download_artifacts(artifact_uri=place, dst_path=str(target), tracking_uri=client.tracking_uri))


def fixed(uri: str) -> str:
    """The address of the version that an alias stands for now; any other address as it is."""
    name, has_alias, alias = uri.removeprefix("models:/").partition("@")
    if not uri.startswith("models:/") or not has_alias:
        return uri
    with reaching(f"model {uri!r} cannot be loaded"):
        return f"models:/{name}/{open_store().get_model_version_by_alias(name, alias).version}"


def hashes(model: str) -> dict[str, str]:
    """The version at an address, or the adapter in a folder, and the hashes of what decides its answers."""
    if Path(model).is_dir() and not (Path(model) / "MLmodel").is_file():
        return {"version": model, "adapter_sha256": Adapter.open(model).digest}
    open_store()
    from mlflow.models import get_model_info

    version = fixed(model)
    with reaching(f"model {version!r} cannot be read"):
        found = get_model_info(version).metadata or {}
    return {"version": version, **{name: str(value) for name, value in found.items()}}


def load_model(uri: str) -> Any:
    """The registered or logged pyfunc at an address."""
    open_store()
    import mlflow.pyfunc

    with reaching(f"model {uri!r} cannot be loaded"):
        return mlflow.pyfunc.load_model(uri)


def tell_makers(parent: Run) -> list[str]:
    """Tag the runs of DVC's stages below `parent` with the hashes of their outputs; name the maker of what did not run.

    A sentence a stage.
    """
    made = children(parent)
    said = []
    for stage, outputs in provenance.stage_outputs().items():
        if stage in made:
            tag_run(made[stage], "dvc.outputs", outputs)
            said.append(f"{stage}: run {made[stage]}")
        else:
            maker = maker_of(parent.experiment_id, stage, outputs) or "not in this store"
            parent.set_tags({f"unchanged.{stage}": maker})
            said.append(f"{stage}: unchanged, skipped; made by run {maker}")
    return said
