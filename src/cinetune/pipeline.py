"""What stages share: where they write, what runs are called, how a stage is started below another."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cinetune import params as params_module
from cinetune import provenance
from cinetune.errors import InputError
from cinetune.files import file_md5
from cinetune.params import PARAMS, Params
from cinetune.task import data_card

if TYPE_CHECKING:
    from cinetune.artifacts import Adapter, Evaluation
    from cinetune.frames.store import FrameStore
    from cinetune.runtime.observation import Observation
    from cinetune.tracking.runs import Run, Tracker

logger = logging.getLogger(__name__)

# What DVC's stages make, named in dvc.yaml too. Runs by hand write under RUNS and never here: DVC would put
# its own cached outputs back without a word.
FRAMES = Path("cache/frames")
ADAPTER = Path("outputs/adapter")
EVALUATION = Path("outputs/evaluation")
REPORT = Path("outputs/report")
RUNS = Path("outputs/runs")
CHECKPOINTS = Path("outputs/checkpoints")
CLIPS = "clips"
MAX_NAME_CHARS = 80
COMPARED = {
    "train": ("epochs", "learning_rate", "lora_rank", "lora_alpha", "clips_per_step", "max_steps", "seed"),
    "evaluate": ("model", "ablation", "split"),
}
# What an evaluation says of what it read, for a version's origin.
MEASURED = (
    "base_digest", "tokenizer_digest", "questions_digest", "frames_digest", "prompt_code_hash", "parsers_hash",
)  # fmt: skip
RUN_ID = re.compile(r"[0-9a-f]{32}")
NAMES_OF_EVALUATIONS = (
    "name base, finetuned, a folder with predictions.parquet and metrics.json, an MLflow run of evaluate (its id, or "
    "runs:/...), or models:/<name>@<alias>"
)


def run_name(stage: str, *words: str) -> str:
    """What MLflow's UI calls a run: what tells it from others first, for narrow columns, then the stage."""
    told = " ".join(" ".join(words).split())
    room = MAX_NAME_CHARS - len(stage) - len(" ()")
    return f"{told if len(told) <= room else f'{told[: room - 1]}…'} ({stage})" if told else stage


def unusual(params: Params, stage: str, known: Sequence[str] = ()) -> list[str]:
    """What differs from params.yaml, for a run's name, as in `epochs=1`; but for the keys in `known`."""
    usual = params_module.load(PARAMS).to_dict()[stage]
    return [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.to_dict()[stage].items()
        if value != usual[name] and name not in known
    ]


@contextmanager
def started(
    stage: str,
    params: Params,
    sections: Sequence[str] = (),
    splits: Sequence[str] = (),
    *,
    named: Sequence[str] = (),
    known: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    parent: Tracker | None = None,
    is_pipeline: bool = False,
) -> Iterator[Tracker]:
    """A stage's MLflow run, its params and questions logged; below `parent` where there is one.

    named: words of its name behind the stage; known: keys that these say already, of those that differ from
    params.yaml.
    """
    from cinetune.tracking import lifecycle

    name = run_name(stage, *named, *unusual(params, stage, known))
    with lifecycle.start(stage, tags_of(params, is_pipeline) | dict(tags or {}), parent, name) as tracked:
        tracked.log_params({"": compared(params, stage), **data_card.named(params).sections(*sections)})
        if is_pipeline:
            check_data(params)
        for split in splits:
            log_questions(tracked, params, split)
        yield tracked


def dry_run(stage: str, params: Params, describe: Callable[[Params], Sequence[str]], is_pipeline: bool) -> list[str]:
    """What a stage would take, a fact a line; told on the run that `mlflow run` has begun for it as well."""
    from cinetune.tracking import lifecycle

    if is_pipeline:
        refuse_dry_run(params)
    with lifecycle.given("dry run", run_name("dry run", stage, *unusual(params, stage, ["dry_run"]))) as tracked:
        said = list(describe(params))
        tracked.describe("\n".join(f"- {line}" for line in said))
    return said


def refuse_dry_run(params: Params) -> None:
    """Raises InputError where a stage is asked for its estimate and others wait for what it makes."""
    for stage in ("frames", "train"):
        if params.to_dict()[stage]["dry_run"]:
            raise InputError(
                f"{stage}.dry_run tells what this stage alone would take: set it to false, or run `mlflow run . -e "
                f"{stage} -P dry_run=true`."
            )


def compared(params: Params, stage: str) -> dict[str, Any]:
    """What runs of a stage are compared by, named so that MLflow's compare page opens on it.

    That shows the first three parameters that differ, by name. Capital letters come before the names under which
    `mlflow run` logs all that it passes, and which runs of the loop do not have.
    """
    values = params.to_dict().get(stage, {})
    return {key.replace("_", " ").capitalize(): values[key] for key in COMPARED.get(stage, ())}


def has_frames_alone(params: Params) -> bool:
    """Whether the clips are elsewhere and their frames are here, pulled from where they were decoded."""
    return not (Path(params.data.root) / CLIPS).exists() and (FRAMES / "index.parquet").is_file()


def check_data(params: Params) -> None:
    """Raises InputError where files of the data are gone; without any clips their frames are enough."""
    provenance.check_complete(params.data.root, CLIPS if has_frames_alone(params) else "")


def open_frames(params: Params) -> FrameStore:
    """The pipeline's frames. Raises InputError where they are missing or were made with other settings."""
    from cinetune.frames.sampling import FrameSettings
    from cinetune.frames.store import FrameStore

    return FrameStore.open(FRAMES, FrameSettings.of(params.frames))


def open_evaluation(name: str, scratch: Path) -> Evaluation:
    """An evaluation by any of its names; what MLflow holds is fetched to `scratch`."""
    from cinetune.artifacts import Evaluation
    from cinetune.tracking import registry
    from cinetune.tracking.queries import fetch

    run_id = name.removeprefix("runs:/")
    if name in ("base", "finetuned"):
        folder = EVALUATION / name
    elif Path(name).exists():
        folder = Path(name) if Path(name).is_dir() else Path(name).parent
    elif name.startswith("models:/"):
        folder = registry.fetch_evaluation(*registry.resolve(name), scratch)
    elif RUN_ID.fullmatch(run_id):
        folder = fetch(f"runs:/{run_id}/evaluation", scratch)
    elif name.startswith("runs:/") and "/" in run_id:
        folder = fetch(name, scratch)
    else:
        raise InputError(
            f"{name!r} is no evaluation: {NAMES_OF_EVALUATIONS}; a predictions file made elsewhere is evaluated first."
        )
    return Evaluation.open(folder, name, NAMES_OF_EVALUATIONS)


def tags_of(params: Params, is_pipeline: bool = False) -> dict[str, str]:
    """What decided a run's bytes, for its tags."""
    from cinetune.frames.sampling import FrameSettings, identity
    from cinetune.task import description, prompts

    tags = {
        "prompt.hash": prompts.template_hash(description.of_folder(params.data.root)),
        "frames.identity": identity(FrameSettings.of(params.frames)),
    }
    for name, path in (("dvc.data", params.data.root), ("dvc.base-model", params.model.base)):
        digest = provenance.dvc_hash(path)
        if digest:
            tags[name] = digest
    about = data_card.read(params.data.root)
    if about is not None:
        tags |= {"data.source": about.source, "data.licence": about.licence}
    # DVC names the stage that it runs; `main` looks for it when it says who made what.
    return tags | ({"dvc.stage": os.environ["DVC_STAGE"]} if is_pipeline and "DVC_STAGE" in os.environ else {})


def origin_of(params: Params, adapter: Adapter, evaluation: Evaluation, experiment_id: str) -> dict[str, str]:
    """What a version is made from, as far as it can be known: params, commit, what was measured, MLflow runs."""
    from cinetune.task import prompts
    from cinetune.tracking.queries import maker_of

    tags = {
        "model": params.register.name,
        "adapter_digest": adapter.digest,
        "base_model": params.model.base,
        "base_revision": adapter.base_commit or params.model.revision,
        "data": data_card.name_of(params.data),
        "experiment": experiment_id,
        "frames.settings": json.dumps(params.sections("frames")["frames"]),
        **provenance.git_state(),
        **tags_of(params),
        "prompt.hash": prompts.template_hash(adapter.task),
        **{name: str(evaluation.made_from.get(name) or "") for name in MEASURED},
    }
    locked = provenance.locked_paths()
    root = params.data.root
    paths = {"questions": f"{root}/questions", "clips": f"{root}/clips", "frames": str(FRAMES)}
    tags |= {f"dvc.{name}": locked[path] for name, path in paths.items() if path in locked}
    if adapter.folder == ADAPTER:
        for stage, outputs in provenance.stage_outputs().items():
            maker = maker_of(experiment_id, stage, outputs)
            tags |= {f"run.{stage}": maker} if maker else {}
    elif adapter.folder.resolve().is_relative_to(RUNS.resolve()):
        tags["run.train"] = adapter.folder.resolve().relative_to(RUNS.resolve()).parts[0]
    return {name: value for name, value in tags.items() if value}


def log_questions(run: Tracker, params: Params, split: str) -> tuple[str, str]:
    """The questions of a split as an input of the run; their name and digest, which is DVC's hash of the file.

    Raises InputError where the data's card contradicts `data.name`.
    """
    from cinetune.task import description, questions
    from cinetune.tracking import datasets

    data_card.check(params.data)
    path = questions.file_of(params.data.root, split)
    name, digest = f"{data_card.name_of(params.data)} {split}", file_md5(path)
    run.log_dataset(name, split, path, digest, *datasets.describe(path, description.of_folder(params.data.root)))
    return name, digest


def log_training_questions(run: Tracker, params: Params) -> None:
    """All that a training reads of them, as inputs of the run."""
    from cinetune.task import questions

    for split in questions.training_splits(params.data.root):
        log_questions(run, params, split)


def evaluate_version(parent: Run, params: Params, asked: Evaluation, version: str) -> Evaluation:
    """What a version of `register.name` answers to the questions of an evaluation, shown what it was trained with.

    In a run below `parent`. Raises InputError where it cannot be evaluated here.
    """
    from cinetune.artifacts import SEEN_SECTIONS, Evaluation
    from cinetune.tracking import registry

    name = params.register.name
    with tempfile.TemporaryDirectory() as scratch:
        made_with = params_module.read_yaml(
            registry.fetch_artifact(name, version, "artifacts/params.yaml", Path(scratch))
        )
    for section in SEEN_SECTIONS:
        params = params.override(section, made_with.get(section, {}))
    params = params.override("data", asked.made_from.get("params", {}).get("data", {}))
    wanted = {
        "model": f"models:/{name}/{version}",
        "split": asked.summary["split"],
        "ablation": "none",
        "ablations": "none",
        "prompt": "",
        "allow": "",
    }
    params = params.override("evaluate", wanted)
    logger.info("register: version %s of %s is evaluated on these questions.", version, name)
    child, status = call_below(parent, "evaluate", params, run_name("evaluate", f"version {version}"))
    if status:
        raise InputError(f"the evaluation of version {version} ended with status {status}: its reason stands above.")
    return Evaluation.open(RUNS / child / "evaluation", f"version {version}")


def write_traces(run: Tracker, params: Params, seen: Sequence[Observation]) -> None:
    """What `predict` was asked as traces of its run."""
    from cinetune.tracking import queries
    from cinetune.tracking.runs import Run
    from cinetune.tracking.traces import writing

    if not isinstance(run, Run):
        return
    # A file may be anybody's.
    data = data_card.name_of(params.data) if params.predict.video.startswith("clip:") else ""
    with writing.told("a trace"):
        tags, has_content = queries.hashes(params.predict.model), writing.shows_content(params.trace.content, data)
        for one in seen:
            writing.write(one, tags, has_content, run.id)


def call_below(
    parent: Run, stage: str, params: Params, name: str = "", variables: Mapping[str, str] | None = None
) -> tuple[str, int]:
    """Run a stage in a process and an MLflow run of its own, below this one: the run's id, and its exit status."""
    from cinetune.tracking import lifecycle

    child = lifecycle.create_child(parent, name or stage)
    environment = {**os.environ, **(variables or {}), "MLFLOW_RUN_ID": child}
    environment["MLFLOW_EXPERIMENT_ID"] = parent.experiment_id
    with tempfile.TemporaryDirectory() as scratch:
        recipe = Path(scratch) / PARAMS
        recipe.write_text(yaml.safe_dump(params.to_dict(), sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "cinetune", stage, "--params", str(recipe)]
        with subprocess.Popen(command, env=environment) as process:
            try:
                return child, process.wait()
            except BaseException:
                # Asked, it ends its own run; killed, it would leave it open.
                process.terminate()
                raise
