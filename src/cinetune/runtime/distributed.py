"""Several processes of one training, started here or by torchrun: one a GPU (NCCL), or on the CPU alone (gloo).

Each knows its RANK and WORLD_SIZE from the environment, as torchrun sets them. The first one writes and logs.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from cinetune.errors import InputError

# Set for what `launch` starts, so that it ends when the launcher does.
LAUNCHED = "CINETUNE_LAUNCHED"
PATIENCE_S = 60.0
WRONG_INPUT = 2
# The exit status of a launched process that lost another one.
LOST = 3


class LostProcessError(InputError):
    """Another process of this training ended, and this one cannot go on alone."""


def rank() -> int:
    """Of this process among all, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Processes of this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    return rank() == 0


def device() -> str:
    """Of this process: its own GPU where there are GPUs. Raises InputError when there are too few."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    wanted, there = int(os.environ.get("LOCAL_WORLD_SIZE", count())), torch.cuda.device_count()
    if wanted > there:
        raise InputError(f"{wanted} processes need {wanted} GPUs, and there are {there}: set train.processes={there}.")
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


@contextmanager
def joined() -> Iterator[None]:
    """The processes can talk to each other within the block; nothing happens where there is one alone.

    Raises LostProcessError where another one ends before the block does.
    """
    if count() == 1:
        yield
        return
    import torch

    own = device()
    if own != "cpu":
        torch.cuda.set_device(own)
    torch.distributed.init_process_group("gloo" if own == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        yield
    except RuntimeError as error:
        # Gloo's errors have no class of their own.
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        raise LostProcessError(
            f"another of the {count()} processes ended during this training: see its output, and go on from the last "
            "checkpoint with train.resume=true."
        ) from error
    finally:
        torch.distributed.destroy_process_group()


def share(value: Any) -> Any:
    """The first process's value, everywhere."""
    if count() == 1:
        return value
    import torch

    box = [value]
    torch.distributed.broadcast_object_list(box, device=torch.device("cpu"))
    return box[0]


def gather(items: Sequence[Any]) -> list[Any]:
    """All processes' items, everywhere."""
    if count() == 1:
        return list(items)
    import torch

    lists: list[Any] = [None] * count()
    torch.distributed.all_gather_object(lists, list(items))
    return [item for part in lists for item in part]


def launch(arguments: Sequence[str], number: int) -> int:
    """Run `python -m cinetune <arguments>` in `number` processes of this machine; the first failure ends all.

    The exit status is that of the process that failed. Only the first process prints, unless it was another that
    failed; that a signal ended it is told here.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // number))
    shared = {"WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(number)]
        stack.callback(_stop, started)
        for own in range(number):
            ranks = {name: str(value) for name, value in {**shared, "RANK": own, "LOCAL_RANK": own}.items()}
            environment = {**os.environ, "OMP_NUM_THREADS": threads, LAUNCHED: "1", **ranks}
            command = [sys.executable, "-m", "cinetune", *arguments]
            stdout, stderr = (None, None) if own == 0 else (subprocess.DEVNULL, errors[own])
            started.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            )
        failed = _wait(started)
        if failed is None:
            return 0
        status = started[failed].returncode
        # One that was killed had no time to say why.
        if failed and status != -signal.SIGKILL:
            errors[failed].seek(0)
            sys.stderr.write(errors[failed].read().decode(errors="replace"))
        if status > 0:
            return status
        ended_by = signal.Signals(-status).name
        sys.stderr.write(
            f"error: process {failed} of {number}, counted from 0, was ended by {ended_by}, as where memory runs out, "
            "and the others with it: go on from the last checkpoint with train.resume=true.\n"
        )
        return 128 - status


def _wait(started: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """The number of the process that failed, or None when all ended well.

    A process that lost another one fails too: of several, the one that refused its input had the reason, else the
    first that ended for one of its own.
    """
    first: int | None = None
    until = float("inf")
    while time.monotonic() < until and any(process.poll() is None for process in started):
        if first is None and any(process.returncode for process in started):
            first = next(number for number, process in enumerate(started) if process.returncode)
            until = time.monotonic() + PATIENCE_S
        time.sleep(0.1)
    failed = [number for number, process in enumerate(started) if process.returncode]
    refused = [number for number in failed if started[number].returncode == WRONG_INPUT]
    own = [number for number in failed if started[number].returncode != LOST]
    return next(iter([*refused, *(number for number in own if number == first), *own, *failed]), None)


def _stop(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask first: the first process ends its run; then insist."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        running = [process for process in started if process.poll() is None]
        for process in running:
            process.send_signal(number)
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and any(process.poll() is None for process in running):
            time.sleep(0.1)
