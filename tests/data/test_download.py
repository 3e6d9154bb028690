"""Clips come through yt-dlp from servers that stall, lie and change; what came stays, what did not says why."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import resource
import signal
import time
from pathlib import Path

import pytest

from builders.downloads import PARAMS, Script, bring, files, wanted
from builders.processes import in_a_fork
from builders.refusals import sentence
from builders.servers import ClipServer
from cinetune import params as params_module
from cinetune.data import download, verdicts
from cinetune.data.intake import ClipRequest
from cinetune.data.manifest import ClipRecord, Manifest
from cinetune.errors import InputError

pytestmark = pytest.mark.data


BEHAVIOURS = {
    # What the server does: status, attempts. The slowest comes first, so that the others need not be waited for.
    "drip": ("timeout", 2),
    "whole": ("ok", 1),
    "once-500": ("ok", 2),
    "once-cut": ("ok", 2),
    "once-stall": ("ok", 2),
    "once-hangup": ("ok", 2),
    "once-half": ("ok", 2),
    "changes": ("ok", 2),
    "404": ("unavailable", 1),
    "410": ("unavailable", 1),
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
    records = bring(tmp_path / "data", clips, workers=6)
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


def test_a_clip_that_is_refused_while_others_come_costs_its_own_attempts(server: ClipServer, tmp_path: Path) -> None:
    names = ("once-429", "once-403", "429", "403", "whole")
    records = bring(tmp_path, [wanted(f"{server.root}/{name}/a.mp4", name) for name in names])
    assert {name: (record.status, record.attempts) for name, record in records.items()} == {
        "once-429": ("ok", 2), "once-403": ("ok", 2), "429": ("rate_limited", 2), "403": ("forbidden", 2),
        "whole": ("ok", 1),
    }  # fmt: skip
    assert not records["429"].settled and not records["403"].settled


def many(status: str, count: int) -> list[ClipRequest]:
    return [wanted(f"https://clips.test/{status}/{number}.mp4", f"{status}{number}") for number in range(count)]


def test_a_second_run_takes_up_what_may_have_changed_and_nothing_else(script: Script, tmp_path: Path) -> None:
    clips = [clip for status in ("ok", "unavailable", "network", "broken") for clip in many(status, 1)]
    records = bring(tmp_path, clips, retries=0)
    assert {clip_id for clip_id, record in records.items() if record.settled} == {"ok0", "unavailable0", "broken0"}
    script.asked.clear()
    records = bring(tmp_path, clips, retries=0)
    assert script.asked == {"network": 1} and records["network0"].attempts == 2
    (tmp_path / "clips" / "ok0.mp4").unlink()
    script.asked.clear()
    bring(tmp_path, clips, again="unavailable", retries=0)
    assert script.asked["ok"] and script.asked["unavailable"] and not script.asked["broken"]
    assert (tmp_path / "clips" / "ok0.mp4").is_file()


@pytest.mark.parametrize("status", ["rate_limited", "forbidden"])
def test_a_refusal_ends_the_asking_of_all_workers_and_the_run_goes_on_by_itself(
    script: Script, tmp_path: Path, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    script.refusal = (status, 6)
    records = bring(tmp_path, many("ok", 30), retries=6, workers=4)
    assert {record.status for record in records.values()} == {"ok"} and len(records) == 30
    assert script.asked["ok"] == 30 + 6
    told = [record.message for record in caplog.records if "all workers wait until" in record.message]
    assert 1 <= len(told) <= 6 and status in told[0]


def test_a_server_that_refuses_everything_is_left_alone(script: Script, tmp_path: Path) -> None:
    text = sentence(lambda: bring(tmp_path, many("rate_limited", 50), workers=4, cooldown_s=60.0, max_cooldown_s=0.0))
    assert "refuses (said rate_limited)" in text and "run it again" in text
    # One request of each worker at most after the first refusal.
    assert script.asked["rate_limited"] <= 1 + 4
    assert not any(record.settled for record in Manifest(tmp_path).records.values())


@pytest.mark.parametrize("status", ["unavailable", "client_error", "network", "not_a_video", "geo_blocked", "broken"])
def test_one_failure_that_all_clips_share_stops_the_run_and_is_final_for_none(
    script: Script, tmp_path: Path, status: str
) -> None:
    text = sentence(lambda: bring(tmp_path, many(status, 60), retries=0, stop_after=20))
    assert "clips in a row" in text and repr(status) in text
    assert script.asked[status] < 30
    assert not any(record.settled for record in Manifest(tmp_path).records.values())


def test_a_client_that_fails_in_the_middle_of_a_run_makes_nothing_final(script: Script, tmp_path: Path) -> None:
    bring(tmp_path, many("ok", 3))
    script.refusal = ("unavailable", 1000)
    sentence(lambda: bring(tmp_path, many("ok", 60), retries=0, stop_after=5))
    assert {record.status for record in Manifest(tmp_path).records.values() if record.settled} == {"ok"}
    script.refusal = ("", 0)
    assert {record.status for record in bring(tmp_path, many("ok", 60)).values()} == {"ok"}


def test_clips_that_are_gone_are_final_where_a_known_one_still_comes(script: Script, tmp_path: Path) -> None:
    bring(tmp_path, many("ok", 1))
    clips = [*many("ok", 1), *many("unavailable", 12), *many("client_error", 1)]
    records = bring(tmp_path, clips, retries=0, stop_after=6, workers=1)
    assert {record.clip_id for record in records.values() if not record.settled} == {"client_error0"}
    # A known one is asked for again after six failures in a row, after twelve, or at the end.
    assert 2 <= script.asked["ok"] <= 4
    script.asked.clear()
    bring(tmp_path, clips, retries=0)
    assert script.asked == {"client_error": 1}


def test_a_failure_is_not_final_where_the_known_clip_fails_as_well(script: Script, tmp_path: Path) -> None:
    bring(tmp_path, many("ok", 1))
    script.refusal = ("unavailable", 10)
    records = bring(tmp_path, [*many("ok", 1), *many("unavailable", 3)], retries=0)
    assert [record.clip_id for record in records.values() if record.settled] == ["ok0"]


def test_a_run_in_which_nothing_came_is_no_success(script: Script, tmp_path: Path) -> None:
    gone, away, good = many("unavailable", 1), many("network", 1), many("ok", 1)
    records = bring(tmp_path, gone + away, retries=0)
    assert "none of 2 clips came" in sentence(lambda: verdicts.check_outcome(gone + away, gone + away, records))
    records = bring(tmp_path, gone + away + good, retries=0)
    verdicts.check_outcome(gone + away + good, gone + away + good, records)
    # Of those that were left none came either, and one of them may still come.
    assert "'network'" in sentence(lambda: verdicts.check_outcome(gone + away + good, away, records))
    verdicts.check_outcome(gone + away + good, gone, records)
    verdicts.check_outcome(gone + away + good, [], records)


def test_workers_take_turns(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    answer = script.answer
    monkeypatch.setattr(script, "answer", lambda *asked: times.append(time.monotonic()) or answer(*asked))
    bring(tmp_path, many("ok", 6), workers=4, pause_s=0.2)
    assert all(later - earlier >= 0.09 for earlier, later in itertools.pairwise(sorted(times)))


@pytest.mark.parametrize(
    ("announced_s", "status"), [(160.0, "broken"), (3.1, "broken"), (2.9, "ok"), (2.0, "ok"), (0.5, "ok"), (None, "ok")]
)
def test_a_clip_far_shorter_than_its_source_announces_is_not_ok(
    script: Script, tmp_path: Path, announced_s: float | None, status: str
) -> None:
    script.announced_s = announced_s
    [record] = bring(tmp_path, [wanted("https://youtu.be/-aB3_xyz-09")], retries=0).values()
    assert record.status == status
    assert status == "ok" or f"2.0 s where its source announces {announced_s:.1f} s" in record.reason


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


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, "download.questions"), ({"videos": "gone"}, "'gone' is no folder"), ({"cookies": "gone"}, "Netscape"),
        ({"pin": True, "data_dir": "../outside"}, "cannot pin"), ({"data_dir": "a_file"}, "not a folder"),
        ({"data_dir": "of_others"}, "has not put there"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_done(
    tmp_path: Path, changed: dict[str, object], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    (tmp_path / "of_others").mkdir()
    (tmp_path / "of_others" / "a").touch()
    before = files(tmp_path)
    params = dataclasses.replace(PARAMS, questions="train.csv" if changed else "", data_dir="new")
    assert named in sentence(lambda: download.claim(dataclasses.replace(params, **changed)))
    assert files(tmp_path) == before and not (tmp_path / "new").exists()


def test_one_folder_is_filled_by_one_download_at_a_time(tmp_path: Path) -> None:
    second = download.held(tmp_path)
    with download.held(tmp_path), pytest.raises(InputError, match="another download"):
        second.__enter__()
    with download.held(tmp_path):
        pass


def test_the_plan_says_how_long_it_takes_and_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    params = dataclasses.replace(params_module.load().download, data_dir=str(tmp_path))
    # YouTube lets guests have about 300 an hour.
    assert 3600 / params.pause_s <= 300
    youtube = [wanted(f"https://youtu.be/aaaaaaaaaa{number}") for number in range(5)] * 60
    files_alone = [wanted("a.mp4", root=Path("/"))]
    monkeypatch.setattr(download, "missing_parts", lambda: ["yt-dlp-ejs", "deno"])
    told, missing = download.plan(youtube, params)
    assert "300 clips" in told and "about 1.0 hours and 3.3 GB; " in told and "GB are free" in told
    [told, _] = download.plan(youtube, dataclasses.replace(params, pin=True))
    assert "3.3 GB, 6.5 GB with what DVC copies into its cache" in told
    assert "yt-dlp-ejs and deno" in missing and "yt-dlp[default,deno]" in missing
    assert download.plan(files_alone, params) == []
    assert len(download.plan(many("ok", 3), params)) == 1
    monkeypatch.setattr(download, "missing_parts", lambda: [])
    assert len(download.plan(youtube, params)) == 1
