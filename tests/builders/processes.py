"""Code in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import psutil


def children() -> set[int]:
    """The process ids of this process's own children."""
    return {child.pid for child in psutil.Process().children()}


def in_a_fork(work: Callable[..., None], *arguments: Any) -> int | None:
    """The exit status of a child that does this, with all that is imported already; minus the signal that ended it."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode
