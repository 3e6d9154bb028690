"""Folders of video2dataset are taken over."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from pathlib import Path

import pytest

from builders.downloads import bring, wanted
from builders.refusals import sentence
from builders.servers import ClipServer
from cinetune.data import video2dataset

pytestmark = pytest.mark.data


def test_a_folder_of_video2dataset_is_taken_over_without_fetching(
    server: ClipServer, content: bytes, tmp_path: Path
) -> None:
    ids = ["-aaaaaaaaa0", "aaaaaaaaaa1", "aaaaaaaaaa2", "aaaaaaaaaa3"]
    info = {
        clip_id: json.dumps(
            {
                "url": f"https://youtube.com/watch?v={clip_id}",
                "cuts": {"cuts_original_fps": [[0, 24]], "original_fps": 12.0},
            }
        ).encode()
        for clip_id in ids
    }
    folder = tmp_path / "v2d"
    (folder / "00000").mkdir(parents=True)
    for number, clip_id in enumerate(ids[:2]):
        (folder / "00000" / f"{number:09d}.json").write_bytes(info[clip_id])
        (folder / "00000" / f"{number:09d}.mp4").write_bytes(content)
    (folder / "00000" / "stats.json").write_text("[]")
    with tarfile.open(folder / "00001.tar", "w") as shard:
        for name, data in (
            ("a.json", info[ids[2]]),
            ("a.mp4", content),
            ("../b.json", info[ids[3]]),
            ("../b.mp4", b"bad"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    (folder / "00002.tar").write_bytes(b"no tar file")
    stored = video2dataset.find(folder)
    assert sorted(stored) == ids
    # The broken one is fetched instead; this one from our server.
    clips = [wanted(f"https://youtu.be/{clip_id}") for clip_id in ids[:3]]
    clips.append(dataclasses.replace(wanted(f"{server.root}/whole/a.mp4"), clip_id=ids[3]))
    records = bring(tmp_path / "data", clips, stored=stored)
    assert {record.status for record in records.values()} == {"ok"} and sum(server.hits.values()) == 1
    taken, source = tmp_path / "data/clips/-aaaaaaaaa0.mp4", folder / "00000/000000000.mp4"
    assert taken.stat().st_ino == source.stat().st_ino
    assert "no folder" in sentence(lambda: video2dataset.find(tmp_path / "gone"))
