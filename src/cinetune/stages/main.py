"""The loop: frames, train, evaluate, report by DVC, then register; one MLflow run with a child per stage.

Takes the data, the base model and params.yaml (`-P params=<file>` names one that holds only what differs);
makes all that the stages make, and does again only what has changed. Run it with
`mlflow run . --env-manager local`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from cinetune import licences, provenance, registry, stages, tracking
from cinetune import params as params_module
from cinetune.errors import InputError
from cinetune.params import Params

DVC_SCRATCH = Path(".dvc/tmp")
ORIGINAL = DVC_SCRATCH / "params.yaml.original"
PATIENCE_S = {signal.SIGINT: 10.0, signal.SIGTERM: 20.0, signal.SIGKILL: 10.0}


def run(params: Params) -> None:
    name = stages.run_name("main", params.data.name, *stages.unusual(params, "train"))
    with tracking.start("main", name=name) as tracked:
        if not isinstance(tracked, tracking.Run):
            raise InputError("main writes to MLflow: unset CINETUNE_UNTRACKED, or run `dvc repro`.")
        with _params_in_place(params):
            _refuse_missing_inputs(params)
            # Registration would refuse it after all the work.
            licences.of_data(params.data.name, params.register.accept_licence)
            tracked.set_tags(stages.tags_of(params))
            tracked.log_params(params.to_dict())
            stages.log_questions(tracked, params, "train", "train")
            stages.log_questions(tracked, params, params.evaluate.split, "test")
            try:
                _call([sys.executable, "-m", "dvc", "repro"], tracked)
            finally:
                said = _tell_makers(tracked)
            said += _register(params, tracked)
        summaries = {name: _read_metrics(name) for name in ("base", "finetuned")}
        tracked.log_metrics(_headline(summaries))
        tracked.log_artifacts(stages.REPORT, "report")
        table = _table(summaries, params)
        tracked.describe("\n".join(["```", table, "```", *(f"- {line}" for line in said)]))
        print("", table, *said, sep="\n")
        print(f"\nThe report: {stages.REPORT / 'report.html'}. The runs: `make ui`. The model: `make serve`.")


def _refuse_missing_inputs(params: Params) -> None:
    root = Path(params.data.root)
    needed = [root / "questions/train.parquet", root / "questions/test.parquet", root / "clips"]
    base = Path(params.model.base)
    # A name with one slash that is no folder is a hub id.
    if base.exists() or params.model.base.count("/") != 1:
        needed.append(base / "config.json")
    missing = [path for path in needed if not path.exists()]
    if missing:
        raise InputError(
            f"{str(missing[0])!r} does not exist: run `dvc pull data.dvc base-model.dvc`, or set data.root "
            f"and model.base in {stages.PARAMS} to what you have."
        )


@contextmanager
def _only_loop() -> Iterator[None]:
    """One loop at a time in a folder: two would take each other's params.yaml away."""
    if not Path(".dvc").is_dir():
        raise InputError("there is no .dvc folder here: run from the root of the project's git repository.")
    DVC_SCRATCH.mkdir(exist_ok=True)
    with (DVC_SCRATCH / "cinetune.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError("another `main` runs in this folder: wait for its end, or stop it.") from None
        yield


def _restore_params() -> None:
    """Put back the params.yaml that a killed loop has left aside."""
    if ORIGINAL.is_file():
        ORIGINAL.replace(stages.PARAMS)
        print(f"main: a stopped loop had left its own {stages.PARAMS}; yours is back.", file=sys.stderr)


@contextmanager
def _params_in_place(params: Params) -> Iterator[None]:
    """params.yaml with these values for as long as DVC looks at it."""
    target = Path(stages.PARAMS)
    if params_module.load(target) == params:
        yield
        return
    unfinished = ORIGINAL.with_suffix(".unfinished")
    shutil.copy2(target, unfinished)
    unfinished.replace(ORIGINAL)
    written = yaml.safe_dump(params.to_dict(), sort_keys=False)
    try:
        _write_whole(target, written)
        yield
    finally:
        if target.read_text(encoding="utf-8") != written:
            edited = target.with_suffix(".yaml.edited")
            target.replace(edited)
            print(f"main: {target} was edited while the loop ran; the edited file is {edited}.", file=sys.stderr)
        ORIGINAL.replace(target)


def _write_whole(path: Path, text: str) -> None:
    scratch = DVC_SCRATCH / f"{path.name}.new"
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _call(command: Sequence[str], tracked: tracking.Run) -> None:
    """Run a command whose stages become children of this run; it ends with us, however we end."""
    environment = dict(os.environ)
    environment |= {tracking.PARENT: tracked.id, "MLFLOW_EXPERIMENT_ID": tracked.experiment_id}
    environment["CINETUNE_LOOP_PID"] = str(os.getpid())
    # dvc.yaml says `python`: the one that we are.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0) as process:
        try:
            status = process.wait()
        except BaseException:
            _stop_group(process)
            raise
    if status:
        shown = " ".join(command[2:])
        raise InputError(f"`{shown}` ended with status {status}: the reason stands above.")


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ask first: DVC frees its locks and stages end their runs; then insist."""
    for number, patience in PATIENCE_S.items():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)


def _tell_makers(tracked: tracking.Run) -> list[str]:
    """Tag what ran with the hashes of its outputs; name the run that made what did not run."""
    made = tracking.children(tracked)
    said = []
    for stage, outputs in provenance.stage_outputs().items():
        if stage in made:
            tracking.tag_run(made[stage], "dvc.outputs", outputs)
            said.append(f"{stage}: run {made[stage]}")
        else:
            maker = tracking.maker_of(tracked.experiment_id, stage, outputs) or "not in this store"
            tracked.set_tags({f"unchanged.{stage}": maker})
            said.append(f"{stage}: unchanged, skipped; made by run {maker}")
    return said


def _register(params: Params, tracked: tracking.Run) -> list[str]:
    name = params.register.name
    version = registry.versions(name).get(provenance.folder_digest(Path(params.register.adapter)))
    aliases = registry.aliases(name)
    if version and aliases.get("challenger") == version and "champion" in aliases:
        tracked.set_tags({"unchanged.register": f"version {version}"})
        return [f"register: unchanged, skipped; version {version} of {name}, champion is {aliases['champion']}"]
    _call([sys.executable, "-m", "cinetune", "register"], tracked)
    aliases = registry.aliases(name)
    return [f"register: version {aliases['challenger']} of {name}, champion is {aliases['champion']}"]


def _read_metrics(name: str) -> dict[str, Any]:
    return json.loads((stages.EVALUATION / name / "metrics.json").read_text(encoding="utf-8"))


def _headline(summaries: Mapping[str, Any]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for name, summary in summaries.items():
        scores = summary["scorers"]["logit"]
        low, high = scores["overall"]["ci95"] or (None, None)
        figures |= {
            f"{name}/accuracy": scores["overall"]["accuracy"],
            f"{name}/ci_low": low,
            f"{name}/ci_high": high,
        }
        figures |= {f"{name}/accuracy/{short}": part["accuracy"] for short, part in scores["categories"].items()}
    return figures


def _table(summaries: Mapping[str, Any], params: Params) -> str:
    from cinetune import published, report

    chosen = params.report.reference
    reference = published.published(chosen) if chosen != "none" else None
    return report.console_table(summaries["base"], summaries["finetuned"], reference)


def main(argv: Sequence[str]) -> int:
    if "--help" in argv:
        stages.parse(argv, "main", __doc__)
    # Before params.yaml is read: while another loop runs it may hold that one's values.
    with _only_loop():
        _restore_params()
        run(stages.parse(argv, "main", __doc__).params)
    return 0
