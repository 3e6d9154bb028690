"""The loop around DVC's pipeline: one at a time, with params of its own, its inputs pulled, ended as one group."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from cinetune.errors import InputError
from cinetune.files import only_one, write_whole
from cinetune.params import Params

logger = logging.getLogger(__name__)

DVC_SCRATCH = Path(".dvc/tmp")
EMBEDDED = "embedded"
PATIENCE_S = {signal.SIGINT: 10.0, signal.SIGTERM: 20.0, signal.SIGKILL: 10.0}


@contextmanager
def only_loop() -> Iterator[None]:
    """One loop at a time in a folder: two would take each other's outputs away."""
    if not Path(".dvc").is_dir():
        raise InputError("there is no .dvc folder here: run from the root of the project's git repository.")
    DVC_SCRATCH.mkdir(exist_ok=True)
    refusal = "another `main` runs in this folder: wait for its end, or stop it."
    with only_one(DVC_SCRATCH / "cinetune.lock", refusal):
        yield


@contextmanager
def written_params(params: Params) -> Iterator[Path]:
    """A whole params file with these values, for DVC and its stages, as long as the block takes."""
    path = (DVC_SCRATCH / "cinetune-params.yaml").absolute()
    write_whole(path, yaml.safe_dump(params.to_dict(), sort_keys=False).encode())
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def pull_missing(folder: str, needed: Sequence[str]) -> None:
    """Have DVC fetch a folder that lacks one of these files, where it is under DVC's control: embedded remote first.

    Raises InputError for what is missing then.
    """
    missing = _missing(folder, needed)
    if not missing:
        return
    pinned, reason = Path(f"{folder}.dvc"), ""
    if pinned.is_file():
        logger.info("main: %s is missing, DVC pulls %s.", missing[0], folder)
        for remote in _remotes():
            command = [sys.executable, "-m", "dvc", "pull", "--quiet", "--remote", remote, str(pinned)]
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
            if done.returncode == 0:
                break
            reason = reason or " ".join(done.stderr.split()).removeprefix("ERROR: ")
        missing = _missing(folder, needed)
    if missing and reason:
        raise InputError(f"{str(missing[0])!r} does not exist, and DVC cannot pull {folder!r}: {reason.rstrip('.')}.")
    if missing:
        raise InputError(
            f"{str(missing[0])!r} does not exist, and {str(pinned)!r} that DVC could pull it by does not either: set "
            "data.root and model.base to what you have, in a file for -P params=<file>."
        )


def _missing(folder: str, needed: Sequence[str]) -> list[Path]:
    return [path for name in needed if not (path := Path(folder, name)).exists()]


def _remotes() -> list[str]:
    """The one that comes with the repository first: it needs no network."""
    from dvc.config import Config

    found = list(Config(Path(".dvc").absolute()).get("remote", {}))
    return sorted(found, key=lambda name: name != EMBEDDED)


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
