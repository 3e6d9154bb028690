"""DVC's pipeline with the values of another file in the place of params.yaml, which stays as it is.

    python -m cinetune.repro <file>

Started by the loop. DVC reads files of its repository through one file system, and this one opens the other file.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from dvc.exceptions import DvcException
from dvc.fs import LocalFileSystem
from dvc.repo import Repo
from dvc.ui import ui

from cinetune.params import PARAMS


class SubstitutingFileSystem(LocalFileSystem):
    """The local one, but for one file that is read elsewhere."""

    def __init__(self, path: str, source: str) -> None:
        super().__init__()
        self._path, self._source = os.path.abspath(path), os.path.abspath(source)  # noqa: PTH100

    def open(self, path: Any, mode: str = "r", **keywords: Any) -> Any:
        is_replaced = os.path.abspath(path) == self._path  # noqa: PTH100
        return super().open(self._source if is_replaced else path, mode, **keywords)


def main(source: str) -> int:
    """The exit status, as of `dvc repro`."""
    ui.enable()
    try:
        with Repo(".", fs=SubstitutingFileSystem(PARAMS, source)) as repo:
            repo.reproduce()
    except DvcException:
        # Its own handler prints the chain of reasons, without a stack trace.
        logging.getLogger("dvc").exception("")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
