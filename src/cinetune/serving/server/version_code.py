"""A version is answered by its own code: by this process where it has the same, else by another that starts with it."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from cinetune import provenance
from cinetune.errors import InputError
from cinetune.files import whole_folder
from cinetune.serving.server import keys

logger = logging.getLogger(__name__)

# Where versions' code lies, by its digest; `make clean` removes it.
KEPT = Path("cache/code")
# The digest of the code that a process was started with.
STARTED_WITH = "CINETUNE_CODE_DIGEST"


def unless_loaded(package: Path) -> Path | None:
    """None where this process runs a copy of this package, else the folder where it is kept to be started from.

    Raises InputError where there is none, and where this process was started to run it and does not.
    """
    if not package.is_dir():
        raise InputError("the model brings no code of this project: name one of its versions.")
    digest = provenance.source_digest(package=package)
    if digest == provenance.source_digest():
        return None
    if os.environ.get(STARTED_WITH) == digest:
        raise InputError(
            "the version's own code cannot be started, for another cinetune comes before it on Python's path: unset "
            "PYTHONPATH."
        )
    return _keep(package, KEPT.absolute() / digest)


def start(folder: Path, command: Sequence[str]) -> None:
    """Put `python -m cinetune <command>`, with the package in that folder, in this process's place.

    Raises InputError where that code would serve without the key that clients are meant to show.
    """
    if keys.key_of_environment() and not (folder / "cinetune/serving/server/keys.py").is_file():
        raise InputError(
            f"this version's code is older than {keys.NAME} and would serve without it: register it again, or unset "
            "the key and put the server behind a proxy that authenticates."
        )
    logger.info("this version was registered with other code than this: it is served with its own, from %s", folder)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, STARTED_WITH: folder.name}
    # -P: the folder that this is started in is not looked into.
    os.execve(sys.executable, [sys.executable, "-P", "-m", "cinetune", *command], environment)


def _keep(package: Path, folder: Path) -> Path:
    """A copy of the package in a folder named by its digest; of servers that start at once the first makes it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder.parent}.lock"):
        kept = folder / package.name
        if not kept.is_dir() or provenance.source_digest(package=kept) != folder.name:
            with whole_folder(folder) as part:
                shutil.copytree(package, part / package.name)
    return folder
