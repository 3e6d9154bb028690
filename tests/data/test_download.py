"""Clips come through yt-dlp from servers that stall, lie and change; what came stays, what did not says why."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from pathlib import Path

import pytest

from builders.downloads import bring, files, wanted
from builders.processes import in_a_fork
from builders.refusals import sentence
from builders.servers import ClipServer
from cinetune.data import download
from cinetune.data.manifest import ClipRecord, Manifest
from cinetune.errors import InputError

pytestmark = pytest.mark.data


BEHAVIOURS = {
    # What the server does: status, attempts. The slowest comes first, so that the others need not be waited for.
    "drip": ("timeout", 2),
    "whole": ("ok", 1),
    "once-500": ("ok", 2),
    "once-429": ("ok", 2),
    "once-403": ("ok", 2),
    "once-cut": ("ok", 2),
    "once-stall": ("ok", 2),
    "once-hangup": ("ok", 2),
    "once-half": ("ok", 2),
    "changes": ("ok", 2),
    "404": ("unavailable", 1),
    "410": ("unavailable", 1),
    "403": ("forbidden", 2),
    "429": ("rate_limited", 2),
    "451": ("geo_blocked", 1),
    "500": ("network", 2),
    "503": ("network", 2),
    "cut": ("network", 2),
    "stall": ("network", 2),
    "hangup": ("network", 2),
    "half": ("broken", 2),
    "empty": ("network", 2),
    "page": ("not_a_video", 2),
    "playlist": ("not_a_video", 2),
    "endless": ("too_large", 1),
}


def test_every_way_a_server_can_behave_ends_in_a_status_and_one_sentence(
    server: ClipServer, content: bytes, tmp_path: Path
) -> None:
    clips = [wanted(f"{server.root}/{behaviour}/a.mp4?token=SECRET", behaviour) for behaviour in BEHAVIOURS]
    began = time.monotonic()
    records = bring(tmp_path / "data", clips, workers=6)
    assert time.monotonic() - began < 30
    assert {name: (record.status, record.attempts) for name, record in records.items()} == BEHAVIOURS
    for record in records.values():
        is_ok = record.status == "ok"
        assert (record.reason == "") == is_ok and (record.duration_s == 2.0) == is_ok
        assert is_ok or (record.reason.endswith(".") and "\n" not in record.reason and "SECRET" not in record.reason)
    good = {f"clips/{name}.mp4" for name, (status, _) in BEHAVIOURS.items() if status == "ok"}
    found = files(tmp_path / "data")
    assert set(found) == {"clips.parquet", *good} and {found[name] for name in good} == {content}
    # Nothing that a page or a playlist names was opened.
    assert not any("secret" in path for path in server.hits)


def test_a_second_run_takes_up_what_may_have_changed_and_nothing_else(server: ClipServer, tmp_path: Path) -> None:
    names = ("whole", "404", "429", "half")
    clips = [wanted(f"{server.root}/{name}/a.mp4", name) for name in names]
    bring(tmp_path, clips, retries=0)
    before = files(tmp_path)
    assert {path: count for path, count in server.hits.items()} == {f"/{name}/a.mp4": 1 for name in names}
    records = bring(tmp_path, clips, retries=0)
    assert server.hits["/429/a.mp4"] == 2 and records["429"].attempts == 2
    assert sum(server.hits.values()) == 5
    (tmp_path / "clips" / "whole.mp4").unlink()
    records = bring(tmp_path, clips, again="unavailable", retries=0)
    assert server.hits["/whole/a.mp4"] == 2 and server.hits["/404/a.mp4"] == 2 and server.hits["/half/a.mp4"] == 1
    assert files(tmp_path)["clips/whole.mp4"] == before["clips/whole.mp4"]


def test_a_server_that_refuses_everything_is_left_alone(server: ClipServer, tmp_path: Path) -> None:
    clips = [wanted(f"{server.root}/429/{number}.mp4") for number in range(50)]
    text = sentence(lambda: bring(tmp_path, clips, retries=0, stop_after=5))
    assert "'rate_limited'" in text and "run it again" in text
    assert sum(server.hits.values()) < 15
    assert len(Manifest(tmp_path).records) >= 5


def test_a_server_that_is_away_costs_one_attempt_a_clip(tmp_path: Path) -> None:
    records = bring(tmp_path, [wanted("http://127.0.0.1:9/a.mp4", "a")], retries=0)
    assert records["a"].status == "network"


def test_cookies_are_sent_and_their_file_stays_as_it_was(server: ClipServer, tmp_path: Path) -> None:
    jar = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tSECRET\n"
    jar.write_text(text)
    records = bring(tmp_path / "data", [wanted(f"{server.root}/whole/a.mp4", "a")], cookies=str(jar))
    assert records["a"].status == "ok" and server.headers_seen[0]["Cookie"] == "session=SECRET"
    assert jar.read_text() == text
    assert all(b"SECRET" not in content for content in files(tmp_path / "data").values())


def test_a_link_to_a_file_never_leaves_its_folder(tmp_path: Path, content: bytes) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "deep", outside):
        folder.mkdir(parents=True)
        (folder / "a.mp4").write_bytes(content)
    (root / "- '\"é🎬.mp4").write_bytes(content)
    (root / "out.mp4").symlink_to(outside / "a.mp4")
    (root / "in.mp4").symlink_to(root / "deep" / "a.mp4")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    os.mkfifo(root / "fifo.mp4")
    (root / "text.mp4").write_text("no video")
    (root / "large.mp4").write_bytes(bytes(2_000_000))
    addresses = {
        "deep/a.mp4": "ok", "deep/../deep/a.mp4": "ok", "in.mp4": "ok", "- '\"é🎬.mp4": "ok",
        f"file://{root}/deep/a.mp4": "ok",
        "../outside/a.mp4": "unreadable", str(outside / "a.mp4"): "unreadable", f"file://{outside}/a.mp4": "unreadable",
        "out.mp4": "unreadable", "loop.mp4": "unreadable", "fifo.mp4": "unreadable", "deep": "unreadable",
        "/dev/zero": "unreadable", "x" * 400: "unreadable", "gone.mp4": "missing", "deep/a.mp4/b": "missing",
        "text.mp4": "not_a_video", "large.mp4": "too_large",
    }  # fmt: skip
    clips = [wanted(address, str(number), root.resolve()) for number, address in enumerate(addresses)]
    records = bring(tmp_path / "data", clips)
    assert {a: records[str(n)].status for n, a in enumerate(addresses)} == addresses
    assert set(files(tmp_path / "data")) == {"clips.parquet"} | {
        f"clips/{number}.mp4" for number, status in enumerate(addresses.values()) if status == "ok"
    }


def record_on_a_full_disk(folder: Path) -> None:
    """Run in a child: no file may grow beyond 100 bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    download.FULL = (errno.EFBIG,)
    with pytest.raises(InputError, match="is full: free space"), download.telling_full_disk(folder):
        Manifest(folder).record(ClipRecord("b", "http://x", "A Film (2001)", "ok", "", 1, 2.0))


def test_a_full_disk_stops_the_run_and_loses_nothing(server: ClipServer, tmp_path: Path) -> None:
    bring(tmp_path / "data", [wanted(f"{server.root}/whole/a.mp4", "a")])
    before = files(tmp_path / "data")
    assert in_a_fork(record_on_a_full_disk, tmp_path / "data") == 0
    assert list(Manifest(tmp_path / "data").records) == ["a"]
    left = files(tmp_path / "data")
    left.pop("clips.journal")
    assert left == before


def test_one_folder_is_filled_by_one_download_at_a_time(tmp_path: Path) -> None:
    second = download.held(tmp_path)
    with download.held(tmp_path), pytest.raises(InputError, match="another download"):
        second.__enter__()
    with download.held(tmp_path):
        pass
