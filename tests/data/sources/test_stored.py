"""Videos that others have downloaded are taken over, in the layouts of the usual programs."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from pathlib import Path

import pytest

from builders.downloads import Script, bring, wanted
from builders.servers import ClipServer
from cinetune.data.sources import stored

pytestmark = pytest.mark.data

IDS = ["-aaaaaaaaa0", "aaaaaaaaaa1", "aaaaaaaaaa2", "aaaaaaaaaa3", "_a-aaaaaaa4"]


def info(clip_id: str, **more: object) -> bytes:
    return json.dumps({"url": f"https://youtube.com/watch?v={clip_id}", **more}).encode()


def make_shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return path


def test_a_folder_of_video2dataset_is_taken_over_without_fetching(
    server: ClipServer, content: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "v2d"
    (folder / "00000").mkdir(parents=True)
    for number, clip_id in enumerate(IDS[:2]):
        (folder / "00000" / f"{number:09d}.json").write_bytes(info(clip_id, cuts={"cuts_original_fps": [[0, 24]]}))
        (folder / "00000" / f"{number:09d}.mp4").write_bytes(content)
    (folder / "00000" / "stats.json").write_text("[]")
    members = {"a.json": info(IDS[2]), "a.mp4": content, "../b.json": info(IDS[3]), "../b.mp4": b"bad"}
    make_shard(folder / "00001.tar", members)
    (folder / "00002.tar").write_bytes(b"no tar file")
    found = stored.find(folder, set(IDS))
    assert sorted(found.by_clip) == IDS[:4] and found.num_others == 0
    # The broken one is fetched instead; this one from our server.
    clips = [wanted(f"https://youtu.be/{clip_id}") for clip_id in IDS[:3]]
    clips.append(dataclasses.replace(wanted(f"{server.root}/whole/a.mp4"), clip_id=IDS[3]))
    records = bring(tmp_path / "data", clips, stored=found.by_clip)
    assert {record.status for record in records.values()} == {"ok"} and sum(server.hits.values()) == 1
    taken, source = tmp_path / "data/clips/-aaaaaaaaa0.mp4", folder / "00000/000000000.mp4"
    assert taken.stat().st_ino == source.stat().st_ino


@pytest.mark.parametrize("clip_id", IDS)
@pytest.mark.parametrize(
    "name",
    [
        "{}.mp4", "{}.webm", "{}.MKV", "deep/er/{}.mp4", "A Title, 2 [{}].mp4", "A [b] Title [{}].f134.mp4",
        "Robin Hood_watch?v={}.mp4", "Robin Hood_watch？v={}.mp4", "Robin Hood_watch%3Fv%3D{}.mp4", "A Title-{}.mp4",
        "A Title ({}).mp4", "film_{}.mp4",
    ],
)  # fmt: skip
def test_a_file_is_known_by_the_id_in_its_name(tmp_path: Path, name: str, clip_id: str) -> None:
    path = tmp_path / name.format(clip_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a")
    (tmp_path / "Other [bbbbbbbbbbb].mp4").write_bytes(b"b")
    (tmp_path / "notes.txt").write_text(clip_id)
    found = stored.find(tmp_path, {*IDS, "scene"})
    assert {known: [video.path for video in videos] for known, videos in found.by_clip.items()} == {clip_id: [path]}
    assert found.num_others == 1


def test_what_yt_dlp_says_beside_a_file_names_it_and_announces_its_length(tmp_path: Path, script: Script) -> None:
    for number, (clip_id, duration_s) in enumerate(zip(IDS, (2.0, 160.0, "2", None, 1), strict=True)):
        (tmp_path / f"{number}.mp4").write_text("2.0")
        about = {"id": clip_id, "webpage_url": f"https://www.youtube.com/watch?v={clip_id}", "duration": duration_s}
        (tmp_path / f"{number}.info.json").write_text(json.dumps(about))
    found = stored.find(tmp_path, set(IDS))
    assert [found.by_clip[clip_id][0].duration_s for clip_id in IDS] == [2.0, 160.0, None, None, 1.0]
    bring(tmp_path / "data", [wanted(f"https://youtu.be/{clip_id}") for clip_id in IDS], stored=found.by_clip)
    # The one that is far shorter than announced is fetched.
    assert script.asked == {"watch": 1}


def test_of_a_shard_that_is_cut_off_what_is_whole_is_kept(tmp_path: Path) -> None:
    members = {f"{number:03d}.{kind}": b"" for number in range(10) for kind in ("json", "mp4")}
    for number in range(10):
        members[f"{number:03d}.json"] = json.dumps({"url": f"https://youtu.be/aaaaaaaaaa{number}"}).encode()
        members[f"{number:03d}.mp4"] = bytes([number]) * 5000
    whole = make_shard(tmp_path / "0.tar", members).read_bytes()
    ids = {f"aaaaaaaaaa{number}" for number in range(10)}
    end = whole.index(bytes([9]) * 5000)
    for num_bytes, count in ((len(whole), 10), (end + 4000, 9), (end - 700, 9), (3000, 0), (0, 0)):
        (tmp_path / "0.tar").write_bytes(whole[:num_bytes])
        found = stored.find(tmp_path, ids).by_clip
        assert len(found) == count, num_bytes
        for clip_id, [video] in found.items():
            video.put(tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == bytes([int(clip_id[-1])]) * 5000


def test_a_shard_is_opened_once_however_many_clips_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"aaaaaaa{number:04d}" for number in range(100)]
    make_shard(tmp_path / "0.tar", {f"{clip_id}.mp4": clip_id.encode() for clip_id in ids})
    opened = []
    plain = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *given, **more: opened.append(given) or plain(*given, **more))
    found = stored.find(tmp_path, set(ids)).by_clip
    for clip_id in ids:
        found[clip_id][0].put(tmp_path / "out")
        assert (tmp_path / "out").read_text() == clip_id
    assert len(opened) == 1 and len(found) == 100


def test_json_of_other_programs_beside_a_file_costs_nothing(tmp_path: Path) -> None:
    for number, text in enumerate(["[]", "{", "null", '{"url": 3}', '{"url": "nowhere:"}', "[" * 100_000, "\udc80"]):
        (tmp_path / f"aaaaaaaaaa{number}.mp4").write_bytes(b"a")
        (tmp_path / f"aaaaaaaaaa{number}.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert len(stored.find(tmp_path, {f"aaaaaaaaaa{number}" for number in range(7)}).by_clip) == 7


def test_what_was_found_is_told(tmp_path: Path) -> None:
    for name in (IDS[0], IDS[1], "bbbbbbbbbbb"):
        (tmp_path / f"{name}.mp4").write_bytes(b"a")
    told = stored.find(tmp_path, set(IDS)).told(tmp_path, len(IDS))
    assert f"2 of 5 clips are in {tmp_path}, 3 are not; 1 videos there are of no clip" in told
    assert stored.find(None, set(IDS)).by_clip == {}
