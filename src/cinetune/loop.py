"""The loop around `dvc repro`: one at a time, with params.yaml in place, ended as one group."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from cinetune import params as params_module
from cinetune.errors import InputError
from cinetune.files import only_one
from cinetune.params import PARAMS, Params
from cinetune.pipeline import ORIGINAL

logger = logging.getLogger(__name__)

DVC_SCRATCH = ORIGINAL.parent
PATIENCE_S = {signal.SIGINT: 10.0, signal.SIGTERM: 20.0, signal.SIGKILL: 10.0}


@contextmanager
def only_loop() -> Iterator[None]:
    """One loop at a time in a folder: two would take each other's params.yaml away."""
    if not Path(".dvc").is_dir():
        raise InputError("there is no .dvc folder here: run from the root of the project's git repository.")
    DVC_SCRATCH.mkdir(exist_ok=True)
    refusal = "another `main` runs in this folder: wait for its end, or stop it."
    with only_one(DVC_SCRATCH / "cinetune.lock", refusal):
        yield


def restore_params() -> None:
    """Put back the params.yaml that a killed loop has left aside."""
    if ORIGINAL.is_file():
        ORIGINAL.replace(PARAMS)
        logger.warning("main: a stopped loop had left its own %s; yours is back.", PARAMS)


@contextmanager
def params_in_place(params: Params) -> Iterator[None]:
    """params.yaml with these values for as long as DVC looks at it."""
    target = Path(PARAMS)
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
            logger.warning("main: %s was edited while the loop ran; the edited file is %s.", target, edited)
        ORIGINAL.replace(target)


def _write_whole(path: Path, text: str) -> None:
    scratch = DVC_SCRATCH / f"{path.name}.new"
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def call(command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Run a command with some variables set; it ends with this process, however that ends."""
    environment = {**os.environ, **variables, "CINETUNE_LOOP_PID": str(os.getpid())}
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
