"""Clips come through yt-dlp from servers that stall, lie and change; what came stays, what did not says why."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cinetune import download, fetching, links, video2dataset
from cinetune import params as params_module
from cinetune.download import ClipRecord, Downloader, Manifest
from cinetune.errors import InputError
from cinetune.intake import Wanted
from cinetune.video import Limits, encode
from clip_server import ClipServer, serving
from conftest import Project, environment, sentence

pytestmark = pytest.mark.data

PARAMS = dataclasses.replace(
    params_module.load().download,
    workers=2, retries=1, pause_s=0.0, backoff_s=0.01, stall_s=1.0, timeout_s=4.0, max_megabytes=1, stop_after=100,
)  # fmt: skip
LIMITS = Limits.of(params_module.load().frames)


def clip(path: Path, seed: int = 0) -> bytes:
    """About 100 kB of film of two seconds."""
    rng = np.random.default_rng(seed)
    encode(path, rng.integers(0, 256, (24, 64, 64, 3), dtype=np.uint8), 12)
    return path.read_bytes()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clip(tmp_path_factory.mktemp("content") / "clip.mp4")


@pytest.fixture
def server(content: bytes, tmp_path: Path) -> Iterator[ClipServer]:
    with serving(content) as server:
        server.other = clip(tmp_path / "other.mp4", seed=1)
        yield server


def wanted(address: str, clip_id: str = "", root: Path | None = None) -> Wanted:
    link = links.read_link(address)
    return Wanted(clip_id or link.clip_id, link, root, "A Film (2001)")


def bring(
    folder: Path, clips: list[Wanted], again: str = "", stored: dict[str, Any] | None = None, **changed: Any
) -> dict[str, ClipRecord]:
    """One run over these clips; what clips.parquet says afterwards."""
    folder.mkdir(exist_ok=True)
    manifest = Manifest(folder)
    with Downloader(folder, dataclasses.replace(PARAMS, **changed), LIMITS, stored or {}) as downloader:
        list(downloader.run(downloader.needed(clips, manifest, set(again.split(","))), manifest))
    manifest.save()
    assert not (folder / ".partial").exists() and not (folder / "clips.journal").exists()
    return {row["clip_id"]: ClipRecord(**row) for row in pd.read_parquet(folder / "clips.parquet").to_dict("records")}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


BEHAVIOURS = {
    # What the server does: status, attempts.
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
    "drip": ("timeout", 2),
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


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("ERROR: [youtube] -aB3_xyz-09: Private video. Sign in if you've been granted access", "private"),
        ("ERROR: [youtube] -aB3_xyz-09: Video unavailable. This video is not available", "unavailable"),
        ("ERROR: [youtube] x: Video unavailable. Not made available in your country", "geo_blocked"),
        ("ERROR: [youtube] x: Sign in to confirm you’re not a bot. Use --cookies", "rate_limited"),
        ("ERROR: [youtube] x: Sign in to confirm your age. This video may be inappropriate", "age_restricted"),
        ("ERROR: [youtube] x: This video has been removed by the uploader", "unavailable"),
        ("ERROR: [youtube] x: Video unavailable. This content isn't available, try again later", "rate_limited"),
        ("ERROR: [youtube] x: Join this channel to get access to members-only content", "private"),
        ("ERROR: unable to write data: [Errno 28] No space left on device", fetching.DISK_IS_FULL),
        ("ERROR: [youtube] x: see https://example.org/?key=SECRET for it", "network"),
    ],
)  # fmt: skip
def test_what_yt_dlp_says_becomes_a_status_without_addresses(message: str, status: str) -> None:
    from yt_dlp.utils import DownloadError

    found = fetching._explain(DownloadError(message))
    assert found.status == status and "SECRET" not in found.reason and not found.reason.startswith("ERROR")


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


def test_a_full_disk_stops_the_run_and_loses_nothing(server: ClipServer, tmp_path: Path) -> None:
    bring(tmp_path / "data", [wanted(f"{server.root}/whole/a.mp4", "a")])
    before = files(tmp_path / "data")
    code = (
        "import resource, signal, sys\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from test_download import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import errno, builtins\n"
        "download.FULL = (errno.EFBIG,)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n"
        "    with download.telling_full_disk(folder):\n"
        "        manifest = Manifest(folder)\n"
        "        manifest.record(ClipRecord('b', 'http://x', 'A Film (2001)', 'ok', '', 1, 2.0))\n"
        "except InputError as error: print(error)\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "data"), "", str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert "is full: free space" in done.stdout, done.stderr
    assert list(Manifest(tmp_path / "data").records) == ["a"]
    left = files(tmp_path / "data")
    left.pop("clips.journal")
    assert left == before


def test_one_folder_is_filled_by_one_download_at_a_time(tmp_path: Path) -> None:
    second = download.only_one(tmp_path)
    with download.only_one(tmp_path), pytest.raises(InputError, match="another download"):
        second.__enter__()
    with download.only_one(tmp_path):
        pass


# ---- the command


QUESTION = {
    "year": 2001, "genre": ["Drama"], "movie_scene": "", "subtitles": "", "question": "Who is there?",
    "choices": list("abcde"), "answer_key": "c", "answer_key_position": 2, "question_category": "Temporal",
    "hard_split": "False", "visual_reliance": "0",
}  # fmt: skip


def ask(path: Path, addresses: list[str], film: str = "Film") -> Path:
    rows = [
        QUESTION | {"yt_clip_link": address, "yt_clip_title": "T", "movie_name": f"{film} {number % 3}"}
        for number, address in enumerate(addresses)
    ]
    pd.DataFrame(rows).to_parquet(path, index=False)
    return path


def command(questions: Path | str, folder: Path, *more: str) -> list[str]:
    flags = ["--pause_s", "0", "--backoff_s", "0.01", "--retries", "1", "--stall_s", "2", *more]
    return ["download", "--questions", str(questions), "--data_dir", str(folder), *flags]


@pytest.mark.slow
def test_the_entry_point_fills_a_folder_once_and_keeps_secrets(
    bare_project: Project, server: ClipServer, tmp_path: Path
) -> None:
    jar = tmp_path / "jar"
    jar.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tCRUMBS\n")
    train = ask(tmp_path / "train.parquet", [f"{server.root}/whole/{i}?key=SECRET" for i in range(4)])
    test = ask(tmp_path / "test.parquet", [f"{server.root}/{k}/9?key=SECRET" for k in ("404", "whole")] + ["nowhere:"])
    given = {"questions": f"{train}|{test}", "data_dir": str(tmp_path / "data"), "max_clips": "5", "cookies": str(jar)}
    first = bare_project.mlflow_run("download", **given, pause_s="0.01")
    assert first.returncode == 0, first.stderr[-3000:]
    assert "5 clips" in first.stdout and "4 ok, 1 unavailable; 5 of them now" in first.stdout
    assert "1 of 7 rows cannot be used" in first.stdout and "2 films are in training and test" in first.stdout
    hits = server.hits.copy()
    second = bare_project.mlflow_run("download", **given, pause_s="0.01")
    assert second.returncode == 0 and "0 of them now" in second.stdout and server.hits == hits
    assert "clips/s" in first.stderr
    logged = [path for path in (bare_project.root / "mlruns").rglob("*") if path.is_file()]
    [report] = {path.read_text() for path in logged if path.name == "attrition.json"}
    assert json.loads(report)["splits"]["test"] == {
        "clips": 2, "clips_by_status": {"ok": 1, "unavailable": 1}, "questions": 2, "questions_lost": 1,
    }  # fmt: skip
    for path in (*logged, bare_project.root / "mlflow.db"):
        assert b"SECRET" not in path.read_bytes() and b"CRUMBS" not in path.read_bytes(), path
    assert not (bare_project.root / "data").exists()


@pytest.mark.slow
def test_a_folder_of_other_things_is_not_touched_and_ours_can_be_pinned(
    bare_project: Project, server: ClipServer, tmp_path: Path
) -> None:
    questions = ask(tmp_path / "test.parquet", [f"{server.root}/whole/1"])
    (tmp_path / "other" / "clips").mkdir(parents=True)
    for folder, more, named in (
        (tmp_path / "other", [], "name another folder"),
        (tmp_path / "new", ["--cookies", "nowhere.txt"], "'nowhere.txt'"),
        (tmp_path / "new", ["--pin", "yes"], "true, false"),
        (tmp_path / "new", ["--questions", "gone.csv"], "twice"),
    ):
        done = bare_project.cinetune(*command(questions, folder, *more))
        assert done.returncode == 2 and named in done.stderr and "Traceback" not in done.stderr, done.stderr
    done = bare_project.cinetune(*command(questions, Path("pinned"), "--pin", "true"))
    assert done.returncode == 0, done.stderr
    assert (bare_project.root / "pinned.dvc").is_file() and "/pinned" in (bare_project.root / ".gitignore").read_text()


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_bytes_of_an_undisturbed_run(
    bare_project: Project, server: ClipServer, tmp_path: Path
) -> None:
    questions = ask(tmp_path / "train.parquet", [f"{server.root}/slow/{number}" for number in range(24)])

    def start(folder: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "cinetune", *command(questions, folder)]
        variables = environment() | {"CINETUNE_UNTRACKED": "1", "PYTHONPATH": str(bare_project.root / "src")}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(words, cwd=bare_project.root, env=variables, **quiet)

    began = time.monotonic()
    assert start(tmp_path / "whole").wait(timeout=120) == 0
    undisturbed, lasting = files(tmp_path / "whole"), time.monotonic() - began
    rng = random.Random(0)
    num_killed = 0
    while num_killed < 20:
        process = start(tmp_path / "killed")
        try:
            process.wait(timeout=rng.uniform(0.3, 0.9) * lasting)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            num_killed += 1
        else:
            # It came to its end before it was to be killed: the next one begins anew.
            assert files(tmp_path / "killed") == undisturbed
            shutil.rmtree(tmp_path / "killed")
            continue
        partly = files(tmp_path / "killed")
        for name in partly:
            if name.startswith("clips/"):
                assert partly[name] == undisturbed[name]
    assert start(tmp_path / "killed").wait(timeout=120) == 0
    assert files(tmp_path / "killed") == undisturbed
    assert time.monotonic() - began < 200
