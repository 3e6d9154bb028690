"""The verbs. What they share: how they take arguments, where they write, how they open the frames.

A stage imports what is heavy inside `run`, so that `--help` and wrong arguments are answered at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import yaml

from cinetune import manual, provenance
from cinetune import params as params_module
from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    from cinetune.frame_store import FrameStore
    from cinetune.questions import ClipQuestions
    from cinetune.tracking import Run, UntrackedRun

PARAMS = "params.yaml"
# What DVC's stages make, named in dvc.yaml too. Runs by hand write under RUNS and never here: DVC would put
# its own cached outputs back without a word.
FRAMES = Path("cache/frames")
ADAPTER = Path("outputs/adapter")
EVALUATION = Path("outputs/evaluation")
REPORT = Path("outputs/report")
RUNS = Path("outputs/runs")
CHECKPOINTS = Path("outputs/checkpoints")
# Beside an adapter: the template that it was trained on, and the params that made it.
PROMPT, MADE_WITH = "prompt.json", "params.json"
# Beside an evaluation: the digest of the adapter that was evaluated, and what it was asked with.
MADE_FROM = "made_from.json"
SECONDS_BETWEEN_LINES = 5.0
MOST_NAME_CHARS = 80


@dataclass(frozen=True)
class Arguments:
    """A stage's parameters, and whether it is DVC that asks (`--pipeline`)."""

    params: Params
    is_pipeline: bool


def parse(
    argv: Sequence[str],
    stage: str,
    documentation: str,
    *,
    has_pipeline: bool = False,
    free: Sequence[str] = (),
) -> Arguments:
    """Arguments of a stage: `--params`, the keys of its params section and, for DVC's stages, `--pipeline`.

    An empty value counts as not given. With `--pipeline` no other key may be given but those in `free`.
    Raises InputError for what cannot be understood; exits for `--help`.
    """
    kinds = _kinds(stage)
    if "--help" in argv or "-h" in argv:
        print(_help(stage, documentation, kinds, has_pipeline))
        raise SystemExit(0)
    # MLflow puts its own flags behind those of the entry point, so they may stand anywhere.
    is_pipeline = has_pipeline and "--pipeline" in argv
    given = _read_flags([word for word in argv if not (is_pipeline and word == "--pipeline")], stage, kinds)
    if not is_pipeline:
        given = _without_project_defaults(stage, given)
    refused = [name for name in given if is_pipeline and name not in free]
    if refused:
        raise InputError(
            f"{stage}: --pipeline takes its values from {PARAMS} alone: leave out --{refused[0]}, or "
            "leave out --pipeline to run by hand."
        )
    values = {name: value for name, value in given.items() if name != "params"}
    params = params_module.load_over(given.get("params", PARAMS))
    return Arguments(params.override(stage, values) if values else params, is_pipeline)


def parameters() -> dict[str, list[str]]:
    """The parameters of each section of params.yaml that is a stage's."""
    return {stage: list(_kinds(stage)) for stage in get_type_hints(Params)}


def _kinds(stage: str) -> dict[str, type]:
    """The keys that a stage takes, and their types."""
    section = get_type_hints(Params).get(stage)
    return {"params": str} | (get_type_hints(section) if section else {})


def _read_flags(words: Sequence[str], stage: str, kinds: Mapping[str, type]) -> dict[str, str]:
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, has_value, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--"):
            raise InputError(f"{stage}: {word!r} is not understood: write --<parameter> <value>.")
        if name not in kinds:
            raise InputError(f"{stage}: parameter {name!r} is not known: choose from {', '.join(kinds)}.")
        # A switch needs no value: `--dry-run`.
        is_switch = kinds[name] is bool and (not rest or rest[0].startswith("--"))
        if is_switch and not has_value:
            value = "true"
        elif not has_value:
            if not rest or (rest[0].startswith("--") and rest[0].removeprefix("--") in kinds):
                raise InputError(f"{stage}: parameter {name!r} has no value: write --{name} <value>, or leave it out.")
            value = rest.pop(0)
        if name in given:
            raise InputError(f"{stage}: parameter {name!r} is given twice: leave one out.")
        given[name] = value
    return {name: value for name, value in given.items() if value != ""}


def _without_project_defaults(stage: str, given: dict[str, str]) -> dict[str, str]:
    """What the user gave, under `mlflow run`.

    MLflow passes MLproject's defaults as if they had been given; they would overrule an edited params.yaml
    and the file that `-P params=` names.
    """
    if "MLFLOW_RUN_ID" not in os.environ:
        return given
    defaults = _project_defaults(stage)
    return {name: value for name, value in given.items() if value != defaults.get(name)}


def _project_defaults(stage: str) -> dict[str, str]:
    """MLproject's, as MLflow passes them; none where that file is not here."""
    project = Path("MLproject")
    if not project.is_file():
        return {}
    entry = yaml.safe_load(project.read_text(encoding="utf-8"))["entry_points"].get(stage, {})
    return {name: str(value["default"]) for name, value in entry.get("parameters", {}).items()}


def _help(stage: str, documentation: str, kinds: Mapping[str, type], has_pipeline: bool) -> str:
    lines = [documentation.strip(), "", "Parameters [with their defaults, from params.yaml]:"]
    lines += manual.parameters(stage, {name: kind for name, kind in kinds.items() if name != "params"})
    lines.append(f"  --{'params':<25}a YAML file that holds only what differs from params.yaml")
    if has_pipeline:
        lines.append(f"  --{'pipeline':<25}as dvc.yaml calls it: params.yaml alone, DVC's outputs")
    lines.append(f"  --{'help':<25}this text")
    return "\n".join(lines)


def run_name(*words: str) -> str:
    """What MLflow's UI calls a run: the stage, and what tells it from others."""
    name = " ".join(" ".join(words).split())
    return name if len(name) <= MOST_NAME_CHARS else f"{name[: MOST_NAME_CHARS - 1]}…"


def unusual(params: Params, stage: str, known: Sequence[str] = ()) -> list[str]:
    """What differs from the project's defaults, for a run's name, as in `epochs=1`; but for the keys in `known`."""
    defaults = {name: value for name, value in _project_defaults(stage).items() if name != "params"}
    usual = dataclasses.asdict(getattr(params.override(stage, defaults), stage))
    values = dataclasses.asdict(getattr(params, stage))
    differing = (name for name in defaults if values[name] != usual[name] and name not in known)
    return [
        f"{name}={values[name]:g}" if isinstance(values[name], float) else f"{name}={values[name]}"
        for name in differing
    ]


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `target` once the block ends without error."""
    scratch = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def open_frames(params: Params) -> FrameStore:
    """The pipeline's frames. Raises InputError where they are missing or were made with other settings."""
    from cinetune.frame_store import FrameStore
    from cinetune.frames import FrameSettings

    store = FrameStore.open(FRAMES)
    wanted = FrameSettings.of(params.frames).to_dict()
    stored = store.settings.to_dict()
    for name, value in wanted.items():
        if stored[name] != value:
            raise InputError(
                f"the frames in {str(FRAMES)!r} were made with frames.{name}={stored[name]!r}, "
                f"not {value!r}: set it in {PARAMS} and run `dvc repro frames`."
            )
    return store


def with_frames(clips: Sequence[ClipQuestions], store: FrameStore) -> list[ClipQuestions]:
    """The clips that can be seen. Says how many cannot, and raises InputError when none can."""
    seen = [clip for clip in clips if clip.clip_id in store]
    if not seen:
        raise InputError(f"none of the {len(clips)} clips has frames in {str(FRAMES)!r}: run `dvc repro frames`.")
    if len(seen) < len(clips):
        print(
            f"{len(clips) - len(seen)} of {len(clips)} clips have no frames and are left out.",
            file=sys.stderr,
        )
    return seen


def refuse_other_prompt(adapter: Path) -> None:
    """Raises InputError for an adapter that was trained on another prompt template than this code has."""
    from cinetune import prompts

    saved = adapter / PROMPT
    if saved.is_file() and json.loads(saved.read_text(encoding="utf-8")) != prompts.template():
        raise InputError(
            f"adapter {str(adapter)!r} was trained on another prompt template than this code has: train it "
            "again, or check out the commit that it was trained at."
        )


def as_trained(params: Params, adapter: Path) -> Params:
    """The params with the sections that an adapter carries: what it was made from and must be shown."""
    saved = adapter / MADE_WITH
    if not saved.is_file():
        return params
    content = params.to_dict()
    for name, values in json.loads(saved.read_text(encoding="utf-8")).items():
        content[name] = {**content.get(name, {}), **values}
    return params_module.from_dict(content, str(saved))


def tags_of(params: Params, is_pipeline: bool = False) -> dict[str, str]:
    """What decided a run's bytes, for its tags."""
    from cinetune import prompts
    from cinetune.frames import FrameSettings, identity

    tags = {
        "prompt.hash": prompts.template_hash(),
        "frames.identity": identity(FrameSettings.of(params.frames)),
    }
    for name, path in (("dvc.data", params.data.root), ("dvc.base-model", params.model.base)):
        digest = provenance.dvc_hash(path)
        if digest:
            tags[name] = digest
    # DVC names the stage that it runs; `main` looks for it when it says who made what.
    return tags | ({"dvc.stage": os.environ["DVC_STAGE"]} if is_pipeline and "DVC_STAGE" in os.environ else {})


def log_questions(run: Run | UntrackedRun, params: Params, split: str, context: str) -> tuple[str, str]:
    """The questions as an input of the run; their name and digest, DVC's hash of all the data where DVC has it."""
    path = Path(params.data.root) / "questions" / f"{split}.parquet"
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: run `dvc pull data.dvc` (or `python -m cinetune mini`) for CinePile-mini, or "
            "download and set data.root."
        )
    digest = provenance.dvc_hash(params.data.root) or provenance.file_md5(path)
    name = f"{params.data.name} {split}"
    run.log_dataset(name, context, path, digest)
    return name, digest


def call_below(
    parent: Run, stage: str, params: Params, name: str = "", variables: Mapping[str, str] | None = None
) -> tuple[str, int]:
    """Run a stage in a process and an MLflow run of its own, below this one: the run's id, and its exit status."""
    from cinetune import tracking

    child = tracking.create_child(parent, name or stage)
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


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sections(params: Params, *names: str) -> dict[str, dict[str, Any]]:
    """Some sections as plain data, to be logged or saved beside what they made."""
    return {name: dataclasses.asdict(getattr(params, name)) for name in names}


def progress_lines(what: str) -> Callable[[int, int], None]:
    """Prints how far a loop is, at most every few seconds and at its end."""
    started = last = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            print(f"{what}: {done}/{total}, {now - started:.0f} s", file=sys.stderr, flush=True)

    return say


class Bar:
    """How far a loop is, how fast, what failed and how long it will take; one line that moves, or one at times."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._done = self._failed = 0
        self._started = self._last = time.monotonic()

    def step(self, is_failure: bool = False) -> None:
        self._done += 1
        self._failed += is_failure
        if time.monotonic() - self._last >= (SECONDS_BETWEEN_LINES if not sys.stderr.isatty() else 0.1):
            self._say()

    def close(self) -> None:
        if self._total:
            self._say(is_last=True)

    def _say(self, is_last: bool = False) -> None:
        self._last = time.monotonic()
        seconds = self._last - self._started
        rate = self._done / max(seconds, 1e-9)
        left = f", {(self._total - self._done) / rate:.0f} s left" if self._done and not is_last else ""
        line = f"{self._what}: {self._done}/{self._total}, {rate:.1f} clips/s, {self._failed} failed{left}"
        is_moving = sys.stderr.isatty()
        end = "\n" if is_last or not is_moving else ""
        print(f"\r\x1b[K{line}" if is_moving else line, end=end, file=sys.stderr, flush=True)
