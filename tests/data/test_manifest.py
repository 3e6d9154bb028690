"""The journal of a download."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinetune.data.manifest import ClipRecord, Manifest

pytestmark = pytest.mark.data


def test_a_journal_that_ends_in_the_middle_of_a_line_loses_that_line(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    for name in ("a", "b"):
        manifest.record(ClipRecord(name, "http://x", "A Film (2001)", "network", "away.", 1, None))
    with (tmp_path / "clips.journal").open("ab") as file:
        file.write(b'{"clip_id": "c", "ur')
    again = Manifest(tmp_path)
    assert list(again.records) == ["a", "b"]
    again.record(ClipRecord("c", "http://x", "A Film (2001)", "ok", "", 1, 2.0))
    again.save()
    assert list(Manifest(tmp_path).records) == ["a", "b", "c"]
