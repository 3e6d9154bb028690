"""DVC's pipeline with the values of another file in the place of params.yaml, which stays as it is.

Its stages depend on the base model that comes with the repository only where that is the one that is used, on the
clips only where those are, and on the data's description of its task and its validation questions where there are any.

    python -m cinetune.repro <file>

Started by the loop. DVC reads files of its repository through one file system, and this one opens other files.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.fs import LocalFileSystem
from dvc.repo import Repo
from dvc.ui import ui

from cinetune import params as params_module
from cinetune.files import write_whole
from cinetune.params import PARAMS
from cinetune.pipeline import has_frames_alone
from cinetune.task import description, questions

# What comes with the repository, as dvc.yaml names it.
OWN_BASE, PIPELINE = "base-model", Path("dvc.yaml")


class SubstitutingFileSystem(LocalFileSystem):
    """The local one, but for files that are read elsewhere: where, by their path."""

    def __init__(self, sources: Mapping[Path, Path]) -> None:
        super().__init__()
        self._sources = {str(path.absolute()): str(source.absolute()) for path, source in sources.items()}

    def open(self, path: Any, mode: str = "r", **keywords: Any) -> Any:
        return super().open(self._sources.get(os.path.abspath(path), path), mode, **keywords)  # noqa: PTH100


def adapted(pipeline: str, has_own_base: bool, more: Sequence[str]) -> str:
    """dvc.yaml for a base model from elsewhere, which is known by its name and revision alone, and for other data.

    more: files beside the usual ones, which decide what every stage that reads questions makes.
    """
    content = yaml.safe_load(pipeline)
    for stage in content["stages"].values():
        deps = [dep for dep in stage["deps"] if has_own_base or Path(dep).parts[0] != OWN_BASE]
        reads = any("/questions" in dep for dep in deps)
        stage["deps"] = [*deps, *(file for file in more if reads and str(Path(file).parent) not in deps)]
    return yaml.safe_dump(content, sort_keys=False)


def with_frames_as_they_are(pipeline: str) -> str:
    """dvc.yaml for a machine without clips: the frames stage keeps what dvc.lock says of it, clips included."""
    content = yaml.safe_load(pipeline)
    content["stages"]["frames"]["frozen"] = True
    return yaml.safe_dump(content, sort_keys=False)


def _files_beside(root: str) -> list[str]:
    """What a data folder may hold, and CinePile's does not."""
    files = [Path(root) / description.FILE, Path(root) / "questions" / f"{questions.VALIDATION}.parquet"]
    return [file.as_posix() for file in files if file.is_file()]


def main(source: str) -> int:
    """The exit status, as of `dvc repro`."""
    ui.enable()
    file = Path(source)
    params, sources = params_module.load(file), {Path(PARAMS): file}
    stages = PIPELINE.read_text(encoding="utf-8")
    has_own_base, more = params.model.base == OWN_BASE, _files_beside(params.data.root)
    if not has_own_base or more:
        stages = adapted(stages, has_own_base, more)
    tracked = Path(f"{params.data.root}.dvc")
    if has_frames_alone(params):
        stages = with_frames_as_they_are(stages)
        if tracked.is_file():
            # DVC would record the folder as it is, without its clips, also where this file is frozen.
            sources[tracked] = file.with_name("cinetune-data.yaml")
            write_whole(sources[tracked], b"outs: []\n")
    if stages != PIPELINE.read_text(encoding="utf-8"):
        sources[PIPELINE] = file.with_name("cinetune-dvc.yaml")
        write_whole(sources[PIPELINE], stages.encode())
    try:
        with Repo(".", fs=SubstitutingFileSystem(sources)) as repo:
            repo.reproduce()
    except DvcException:
        # Its own handler prints the chain of reasons, without a stack trace.
        logging.getLogger("dvc").exception("")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
