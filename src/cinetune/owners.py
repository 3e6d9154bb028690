"""Which process an MLflow run belongs to, and whether it can still be alive.

A power cut or `kill -9` leaves a run RUNNING for ever, because nobody is left to end it. The tags written here tell
the next process on the same machine that its owner is gone. Only Linux says enough for that; elsewhere no run has an
owner and none is ever closed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path

HOST, PROCESS = "owner.host", "owner.process"
PROC = Path("/proc")


def tags() -> dict[str, str]:
    """This process as the owner of a run; empty where it cannot be told."""
    started = _started(os.getpid())
    if started is None:
        return {}
    return {HOST: host(), PROCESS: f"{_boot()} {_namespace()} {os.getpid()} {started}"}


@cache
def host() -> str:
    """This machine: its name, and the id that its system was installed with, for names such as `localhost` repeat."""
    installed = Path("/etc/machine-id")
    return f"{socket.gethostname()} {installed.read_text().strip() if installed.is_file() else ''}".strip()


def is_gone(owner: Mapping[str, str]) -> bool:
    """Whether the owner that a run's tags name has surely ended: a process of this machine, and no other's."""
    if owner.get(HOST) != host() or PROCESS not in owner or not tags():
        return False
    boot, namespace, pid, started = owner[PROCESS].split()
    if boot != _boot():
        return True
    # Numbers of another container's processes mean nothing here.
    return namespace == _namespace() and _started(int(pid)) != started


def _boot() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return str((PROC / "self/ns/pid").stat().st_ino)


def _started(pid: int) -> str | None:
    """When a process began, in clock ticks since the machine did: numbers of processes are used again."""
    try:
        line = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may hold anything.
    return line.rpartition(")")[2].split()[19]
