"""Code in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


def in_a_fork(work: Callable[..., None], *arguments: Any) -> int | None:
    """The exit status of a child that does this, with all that is imported already; minus the signal that ended it."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode
