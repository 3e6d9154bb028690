"""One machine, a job array or a Ray cluster: the store has the same bytes, also when something dies in the middle."""

from __future__ import annotations

import dataclasses
import importlib.util
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tqdm import tqdm

from builders.refusals import sentence
from cinetune import files
from cinetune import params as params_module
from cinetune.frames import estimate, executors, writer
from cinetune.frames.decoder import Decoder
from cinetune.frames.encoding import encode
from cinetune.frames.executors import Work
from cinetune.frames.limits import Limits, VideoError
from cinetune.frames.sampling import ClipFrames, FrameSettings
from cinetune.frames.store import FrameStore, plan
from cinetune.stages import frames as frames_stage

pytestmark = pytest.mark.data

SETTINGS = FrameSettings("uniform", num_frames=2, size=16, cut_threshold=30.0, min_shot_frames=8)
LIMITS = Limits(timeout_s=20.0, max_megapixels=9.0, max_duration_s=900.0, memory_mb=2048, max_frames=5000)
SHARD_CLIPS = 3
CLIP_IDS = ["-a", "b", "broken", "c", "d", "../outside", "e", "gone", "f", "g", "h"]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / "clips"
    folder.mkdir()
    for number, clip_id in enumerate(CLIP_IDS):
        images = np.random.default_rng(number).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
        # One lies where an id that is a path would find it.
        encode(folder / f"{clip_id}.mp4", images, 4)
    (folder / "broken.mp4").write_bytes(b"broken")
    (folder / "gone.mp4").unlink()
    return folder


@pytest.fixture(scope="module")
def expected(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one undisturbed run makes."""
    work = Work(tmp_path_factory.mktemp("whole"), clips, SETTINGS, LIMITS, workers=2)
    results = list(executors.here(work, plan(CLIP_IDS, SHARD_CLIPS)))
    assert [clip_id for clip_id, is_ok in zip(CLIP_IDS, results, strict=True) if not is_ok] == [
        "broken",
        "../outside",
        "gone",
    ]
    join(work.root)
    return content(work.root)


def join(root: Path, clip_ids: list[str] = CLIP_IDS) -> None:
    writer.join(root, SETTINGS, SHARD_CLIPS, dict.fromkeys(clip_ids, ""))


def content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.iterdir())}


def test_parts_of_a_job_array_join_to_the_bytes_of_one_run(
    clips: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    work = Work(tmp_path, clips, SETTINGS, LIMITS, workers=1)
    for part in (2, 0, 1):
        list(executors.here(work, plan(CLIP_IDS, SHARD_CLIPS)[part::3]))
        assert "index.parquet" not in content(tmp_path)
    inodes = {path.stat().st_ino for path in tmp_path.glob("part-*")}
    join(tmp_path)
    assert content(tmp_path) == expected
    # They are renamed, not written again.
    assert {path.stat().st_ino for path in tmp_path.glob("shard-*")} == inodes


def test_parts_that_are_done_at_once_do_not_disturb_each_other(
    clips: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    def run(part: int) -> None:
        work = Work(tmp_path, clips, SETTINGS, LIMITS, workers=1)
        list(executors.here(work, plan(CLIP_IDS, SHARD_CLIPS)[part::4]))

    threads = [threading.Thread(target=run, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    join(tmp_path)
    assert content(tmp_path) == expected


def test_a_part_that_was_killed_is_done_again_and_the_others_stay(
    clips: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    shards = plan(CLIP_IDS, SHARD_CLIPS)
    work = Work(tmp_path, clips, SETTINGS, LIMITS, workers=1)

    def die_in_the_second_shard() -> None:
        for number, _ in enumerate(executors.here(work, shards)):
            if number == 4:
                os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=die_in_the_second_shard)
    process.start()
    process.join()
    assert process.exitcode == -9
    done = writer.done(tmp_path, SETTINGS, dict.fromkeys(CLIP_IDS, ""))
    assert done == {"-a", "b"}
    list(executors.here(work, [[clip_id for clip_id in shard if clip_id not in done] for shard in shards]))
    join(tmp_path)
    assert content(tmp_path) == expected


def test_a_clip_that_comes_in_at_the_front_moves_the_others_without_decoding_them(clips: Path, tmp_path: Path) -> None:
    work = Work(tmp_path / "grown", clips, SETTINGS, LIMITS, workers=1)
    list(executors.here(work, plan(CLIP_IDS[3:5], SHARD_CLIPS)))
    join(work.root, CLIP_IDS[3:5])
    list(executors.here(work, [["b"]]))
    join(work.root, ["b", "c", "d"])
    whole = Work(tmp_path / "whole", clips, SETTINGS, LIMITS, workers=1)
    list(executors.here(whole, [["b", "c", "d"]]))
    join(whole.root, ["b", "c", "d"])
    assert content(work.root) == content(whole.root)


def test_parts_made_with_other_settings_do_not_mix(clips: Path, tmp_path: Path) -> None:
    list(executors.here(Work(tmp_path, clips, SETTINGS, LIMITS, workers=1), [["b"]]))
    other = FrameSettings("uniform", num_frames=2, size=16, cut_threshold=30.0, min_shot_frames=8, seek="keyframe")
    work = Work(tmp_path, clips, other, LIMITS, workers=1)
    assert "other settings" in sentence(lambda: list(executors.here(work, [["c"]])))
    writer.join(tmp_path, other, SHARD_CLIPS, dict.fromkeys(CLIP_IDS, ""))
    assert len(FrameStore.open(tmp_path)) == 0


@pytest.mark.parametrize("shard", ["0/4", "5/4", "3", "a/b", "-1/4", "1/0", "1/2/3"])
def test_a_shard_that_is_none_is_one_sentence(shard: str) -> None:
    params = params_module.load().override("frames", {"shard": shard})
    text = sentence(lambda: frames_stage.run(params))
    assert repr(shard) in text and "3/64" in text


def test_the_pipeline_takes_no_shard_and_no_other_folder() -> None:
    for values in ({"shard": "1/2"}, {"out": "elsewhere"}):
        params = params_module.load().override("frames", values)
        assert "by hand" in sentence(lambda params=params: frames_stage.run(params, is_pipeline=True))


def decode(clips: Path, clip_ids: list[str], root: Path, is_full: bool = False) -> dict[str, int]:
    params = params_module.load().override("frames", {"policy": "uniform", "num_frames": 2, "size": 16}).frames
    return executors.decode_missing(
        dataclasses.replace(params, workers=1, shard_clips=SHARD_CLIPS), clips, clip_ids, root, progress, is_full
    )


def progress(total: int) -> tqdm[object]:
    return tqdm(total=total, disable=True)


@pytest.mark.parametrize("is_full", [False, True])
def test_a_clip_whose_file_is_another_is_decoded_again_and_no_other(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    monkeypatch.setattr(files, "DIGESTS", tmp_path / "digests.sqlite")
    monkeypatch.setattr(files, "SETTLED_NS", 0)
    copies, clip_ids = tmp_path / "clips", ["b", "c", "d", "e", "f"]
    copies.mkdir()
    for clip_id in clip_ids:
        shutil.copy(clips / f"{clip_id}.mp4", copies)
    assert decode(copies, clip_ids, tmp_path / "frames")["clips_new"] == 5
    assert decode(copies, clip_ids, tmp_path / "frames")["clips_new"] == 0
    shutil.copy(copies / "e.mp4", copies / "c.mp4")
    assert decode(copies, clip_ids, tmp_path / "frames", is_full) == {"clips": 5, "clips_new": 1, "clips_failed": 0}
    decode(copies, clip_ids, tmp_path / "fresh")
    assert content(tmp_path / "frames") == content(tmp_path / "fresh")
    store = FrameStore.open(tmp_path / "frames")
    assert (store.read("c").frames == store.read("e").frames).all()


def test_a_clip_that_was_replaced_by_a_broken_one_keeps_no_old_frames(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DIGESTS", tmp_path / "digests.sqlite")
    copies = tmp_path / "clips"
    copies.mkdir()
    for clip_id in ("b", "c"):
        shutil.copy(clips / f"{clip_id}.mp4", copies)
    decode(copies, ["b", "c"], tmp_path / "frames")
    shutil.copy(clips / "broken.mp4", copies / "c.mp4")
    assert decode(copies, ["b", "c"], tmp_path / "frames")["clips_failed"] == 1
    assert list(FrameStore.open(tmp_path / "frames").failures) == ["c"]


def test_a_dry_run_says_how_long_decoding_takes_and_writes_nothing(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DIGESTS", tmp_path / "digests.sqlite")
    params = params_module.load().override("frames", {"policy": "uniform", "num_frames": 2, "size": 16}).frames
    root = tmp_path / "frames"
    text = estimate.describe(params, clips, ["b", "gone", "c"], root)
    assert text.startswith("3 of 3 clips are to be decoded, 1 of them have no file: about 0.0 minutes with 2 workers")
    assert not root.exists()
    decode(clips, ["b", "c"], root)
    before = content(root)
    assert estimate.describe(params, clips, ["b", "c"], root) == "none of the 2 clips is to be decoded"
    assert "1 of 3 clips" in estimate.describe(params, clips, ["b", "c", "d"], root)
    assert content(root) == before
    assert "has a file" in sentence(lambda: estimate.describe(params, clips, ["gone"], tmp_path / "none"))


def failing_at_first(monkeypatch: pytest.MonkeyPatch, clip_id: str, times: int) -> None:
    """The machine kills the child that decodes a clip, so many times."""
    read, left = Decoder.read, [times]

    def killed(self: Decoder, source: Path, settings: FrameSettings, name: str) -> ClipFrames:
        if name == clip_id and left[0]:
            left[0] -= 1
            raise VideoError("killed", f"video {name!r} was stopped by the system.")
        return read(self, source, settings, name)

    monkeypatch.setattr(Decoder, "read", killed)


def test_what_the_machine_was_at_fault_for_is_tried_once_more_at_the_end(
    clips: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_at_first(monkeypatch, "b", 1)
    work = Work(tmp_path, clips, SETTINGS, LIMITS, workers=1)
    results = list(executors.here(work, plan(CLIP_IDS, SHARD_CLIPS)))
    assert len(results) == len(CLIP_IDS) and results.count(False) == 3 and results[-1]
    join(tmp_path)
    assert content(tmp_path) == expected


def test_a_store_that_another_run_may_complete_is_no_finished_stage(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        failing_at_first(patched, "b", 2)
        assert decode(clips, ["b", "broken", "c"], tmp_path)["clips_failed"] == 2
    failures = FrameStore.open(tmp_path).passing_failures
    assert list(failures) == ["b"]
    text = sentence(lambda: executors.refuse_passing(failures))
    assert "1 clips failed" in text and "run it again" in text
    assert decode(clips, ["b", "broken", "c"], tmp_path)["clips_failed"] == 1
    executors.refuse_passing(FrameStore.open(tmp_path).passing_failures)


# ---- Ray


def ray_workers(root_pid: int) -> list[int]:
    """Processes below this one in which Ray decodes."""
    below = psutil.Process(root_pid).children(recursive=True)
    return [child.pid for child in below if "ray::_shard_task" in _name(child)]


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@needs_ray
@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_bytes_also_when_a_worker_is_killed(
    clips: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    work = Work(tmp_path, clips, SETTINGS, LIMITS, workers=2)
    killed: list[int] = []
    is_over = threading.Event()

    def kill_one() -> None:
        while not killed and not is_over.is_set():
            for pid in ray_workers(os.getpid())[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        results = list(executors.on_ray(work, plan(CLIP_IDS, SHARD_CLIPS)))
    finally:
        is_over.set()
        killer.join()
    assert killed and len(results) == len(CLIP_IDS) and results.count(False) == 3
    join(tmp_path)
    assert content(tmp_path) == expected


def test_without_ray_the_engine_says_what_to_install(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    work = Work(tmp_path, clips, SETTINGS, LIMITS, workers=1)
    assert "pip install" in sentence(lambda: list(executors.on_ray(work, [["b"]])))
