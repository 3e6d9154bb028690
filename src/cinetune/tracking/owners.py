"""Which process an MLflow run belongs to, and whether it can still be alive.

A power cut or `kill -9` leaves a run RUNNING for ever, as nothing is left to end it. The tags written here tell
the next process on the same machine that its owner is gone. Only Linux has a boot id and pid namespaces; elsewhere no
run has an owner and none is ever closed.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import psutil

HOST, PROCESS = "owner.host", "owner.process"
BOOT_ID, NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
# A correction of the clock moves the boot time, from which psutil counts, between two readings.
TOLERANCE_TICKS = 200


def tags() -> dict[str, str]:
    """This process as the owner of a run; empty where it cannot be identified."""
    if not BOOT_ID.is_file() or not NAMESPACE.exists():
        return {}
    process = psutil.Process()
    return {HOST: host(), PROCESS: f"{_boot()} {_namespace()} {process.pid} {_started(process)}"}


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
    if namespace != _namespace():
        # Pids of another container mean nothing here.
        return False
    try:
        return abs(_started(psutil.Process(int(pid))) - int(started)) > TOLERANCE_TICKS
    except psutil.NoSuchProcess:
        return True


def _boot() -> str:
    return BOOT_ID.read_text().strip()


def _namespace() -> str:
    return str(NAMESPACE.stat().st_ino)


def _started(process: psutil.Process) -> int:
    """Ticks of 1/100 s from boot to the start of a process, for pids are reused."""
    return round(100 * (process.create_time() - psutil.boot_time()))
