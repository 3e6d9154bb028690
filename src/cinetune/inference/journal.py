"""Replies saved clip by clip, so that an evaluation that was killed can be resumed.

One file a process, one line a clip, or a question where a server is asked. A line that was cut off by a kill counts as
not written. Numbers go through JSON unchanged, so predictions of a resumed evaluation are those of an undisturbed one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from cinetune.files import only_one

# The words, the letters' shares and their mass (`scoring.Reply`) of one question.
SavedReply = tuple[str, tuple[float, ...], float]


class Journal:
    """Append-only; several processes may each hold their own part of one folder. A context manager."""

    def __init__(self, folder: Path, part: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / f"part-{part:05d}.jsonl"
        self._held = ExitStack()
        refusal = "the same evaluation is running already: wait for its end, or stop it."
        self._held.enter_context(only_one(self._path.with_suffix(".lock"), refusal))
        self._file = self._held.enter_context(self._path.open("ab"))
        whole = self._path.read_bytes().rpartition(b"\n")
        self._file.truncate(len(whole[0]) + len(whole[1]))

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def add(self, clip_id: str, replies: Mapping[str, Sequence[SavedReply]]) -> None:
        """Save the replies to a clip's questions, by ablation."""
        self.write({"clip_id": clip_id, "replies": replies})

    def read(self) -> dict[str, dict[str, list[SavedReply]]]:
        """All that any part holds: replies by clip and ablation."""
        found: dict[str, dict[str, list[SavedReply]]] = {}
        for content in self.lines():
            of_clip = found.setdefault(content["clip_id"], {})
            for ablation, replies in content["replies"].items():
                of_clip[ablation] = [(raw, tuple(shares), mass) for raw, shares, mass in replies]
        return found

    def write(self, content: Mapping[str, Any]) -> None:
        """Save a line of any content; it is on the disk when this returns."""
        line = json.dumps(content, ensure_ascii=True)
        self._file.write(line.encode("ascii") + b"\n")
        self._file.flush()
        os.fdatasync(self._file.fileno())

    def lines(self) -> Iterator[dict[str, Any]]:
        """What any part holds, line by line."""
        for path in sorted(self._folder.glob("part-*.jsonl")):
            for line in path.read_bytes().split(b"\n")[:-1]:
                yield json.loads(line)

    def take_over(self, run_id: str) -> str | None:
        """Note which run resumes this; the run before it, which did not come to its end."""
        note = self._folder / "run"
        before = note.read_text(encoding="ascii") if note.is_file() else None
        note.write_text(run_id, encoding="ascii")
        return before

    def remove(self) -> None:
        """Forget everything, once it is saved elsewhere."""
        shutil.rmtree(self._folder)

    def remove_on_success(self, kind: type[BaseException] | None, *_: object) -> None:
        """For ExitStack.push: forget everything if the block has ended well."""
        if kind is None:
            self.remove()
