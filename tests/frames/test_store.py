"""A store of frames gives back what was put in, survives being killed, and has the same bytes each time."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from builders.processes import in_a_fork
from cinetune.errors import InputError
from cinetune.frames import store as store_module
from cinetune.frames import writer as writer_module
from cinetune.frames.sampling import ClipError, ClipFrames, FrameSettings, identity
from cinetune.frames.store import DECODING_CODE, FrameStore
from cinetune.frames.writer import PartWriter, done, join, prepare

pytestmark = pytest.mark.data

SETTINGS = FrameSettings("shots", num_frames=4, size=8, cut_threshold=30.0, min_shot_frames=8)
OTHER_SETTINGS = FrameSettings("uniform", num_frames=4, size=8, cut_threshold=30.0, min_shot_frames=8)
CLIP_IDS = ["-dashed", "b", "a", "film/é\n🎬", "c", "d", "e"]


def clip(number: int) -> ClipFrames:
    frames = np.random.default_rng(number).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    return ClipFrames(frames, (0.1, 0.2, 1 / 3, number + 1.0), (0.15,) * (number % 2), number + 2.0)


def digests(clip_ids: list[str]) -> dict[str, str]:
    """Of files that are not there."""
    return dict.fromkeys(clip_ids, "")


def fill(root: Path, clip_ids: list[str], settings: FrameSettings = SETTINGS) -> None:
    """One run of a stage: only what is not done yet, in order; the content depends on the id alone."""
    prepare(root, settings)
    there = done(root, settings, digests(clip_ids))
    with PartWriter(root, settings, shard_clips=3) as writer:
        for clip_id in clip_ids:
            if clip_id not in there:
                writer.add(clip_id, clip(CLIP_IDS.index(clip_id)))
    join(root, settings, 3, digests(clip_ids))


def content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.iterdir())}


def test_what_was_put_in_comes_out(tmp_path: Path) -> None:
    fill(tmp_path, CLIP_IDS)
    store = FrameStore.open(tmp_path)
    assert store.clip_ids == CLIP_IDS and len(store) == 7 and store.failures == {}
    assert store.settings == SETTINGS
    for number, clip_id in enumerate(CLIP_IDS):
        stored, original = store.read(clip_id), clip(number)
        assert clip_id in store
        assert stored.frames.dtype == np.uint8 and (stored.frames == original.frames).all()
        assert (stored.times, stored.cuts, stored.duration_s) == (
            original.times,
            original.cuts,
            original.duration_s,
        )


def test_a_store_that_is_missing_or_damaged_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run the frames stage"):
        FrameStore.open(tmp_path / "nothing")
    fill(tmp_path, CLIP_IDS)
    for name in ("shard-00000.safetensors", "index.parquet", "settings.json"):
        whole = (tmp_path / name).read_bytes()
        for damage in (whole[: len(whole) // 2], b"", None):
            (tmp_path / name).unlink(missing_ok=True)
            if damage is not None:
                (tmp_path / name).write_bytes(damage)
            with pytest.raises(InputError, match="run the frames stage"):
                FrameStore.open(tmp_path).read(CLIP_IDS[0])
        (tmp_path / name).write_bytes(whole)
    assert (FrameStore.open(tmp_path).read("b").frames == clip(1).frames).all()


def test_an_unknown_clip_is_named(tmp_path: Path) -> None:
    fill(tmp_path, CLIP_IDS)
    store = FrameStore.open(tmp_path)
    assert "gone" not in store
    with pytest.raises(InputError, match="'gone'"):
        store.read("gone")


def test_failures_are_kept_with_their_reason_and_tried_again(tmp_path: Path) -> None:
    with PartWriter(tmp_path, SETTINGS, shard_clips=3) as writer:
        writer.add("a", ClipError("broken", "video 'a' is cut off."))
        writer.add("b", clip(1))
    join(tmp_path, SETTINGS, 3, digests(["a", "b"]))
    store = FrameStore.open(tmp_path)
    assert store.clip_ids == ["b"] and store.failures == {"a": "video 'a' is cut off."}
    assert "a" not in store
    with pytest.raises(InputError, match="cut off"):
        store.read("a")
    row = pyarrow.parquet.read_table(tmp_path / "index.parquet").to_pylist()[0]
    assert row["status"] == "broken" and row["settings"] == identity(SETTINGS) and row["duration_s"] is None

    assert done(tmp_path, SETTINGS, digests(["a", "b"])) == {"b"}
    with PartWriter(tmp_path, SETTINGS, shard_clips=3) as writer:
        writer.add("a", clip(2))
    join(tmp_path, SETTINGS, 3, digests(["a", "b"]))
    store = FrameStore.open(tmp_path)
    assert sorted(store.clip_ids) == ["a", "b"] and store.failures == {}


def test_a_later_failure_does_not_take_frames_away(tmp_path: Path) -> None:
    fill(tmp_path, CLIP_IDS)
    with PartWriter(tmp_path, SETTINGS, shard_clips=3) as writer:
        writer.add("a", ClipError("timeout", "video 'a' took too long."))
    join(tmp_path, SETTINGS, 3, digests(CLIP_IDS))
    assert "a" in FrameStore.open(tmp_path)


def test_the_same_clips_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        fill(tmp_path / name, CLIP_IDS)
    assert content(tmp_path / "first") == content(tmp_path / "second")
    assert set(content(tmp_path / "first")) == {
        "index.parquet", "settings.json", *(f"shard-0000{number}.safetensors" for number in range(3)),
    }  # fmt: skip


def test_bytes_do_not_depend_on_how_many_runs_it_took(tmp_path: Path) -> None:
    fill(tmp_path / "once", CLIP_IDS)
    for number, parts in enumerate(([2], [3, 5], [1, 2, 3, 4, 5, 6], [7])):
        root = tmp_path / f"often-{number}"
        for part in parts:
            fill(root, CLIP_IDS[:part])
        fill(root, CLIP_IDS)
        assert content(root) == content(tmp_path / "once")
    with PartWriter(tmp_path / "failed", SETTINGS, shard_clips=3) as failing:
        for clip_id in CLIP_IDS:
            failing.add(clip_id, ClipError("timeout", f"video {clip_id!r} took too long."))
    join(tmp_path / "failed", SETTINGS, 3, digests(CLIP_IDS))
    fill(tmp_path / "failed", CLIP_IDS)
    assert content(tmp_path / "failed") == content(tmp_path / "once")


def test_a_second_run_over_the_same_clips_writes_no_shard(tmp_path: Path) -> None:
    fill(tmp_path, CLIP_IDS)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*")}
    fill(tmp_path, CLIP_IDS)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*")} == before


def test_clips_that_left_the_list_are_dropped(tmp_path: Path) -> None:
    fill(tmp_path / "all", CLIP_IDS)
    left = [clip_id for clip_id in CLIP_IDS if clip_id not in ("b", "d")]
    fill(tmp_path / "all", left)
    fill(tmp_path / "left", left)
    assert FrameStore.open(tmp_path / "all").clip_ids == left
    assert content(tmp_path / "all") == content(tmp_path / "left")


def test_other_settings_replace_the_store(tmp_path: Path) -> None:
    fill(tmp_path / "changed", CLIP_IDS, OTHER_SETTINGS)
    fill(tmp_path / "changed", CLIP_IDS[:2])
    fill(tmp_path / "fresh", CLIP_IDS[:2])
    assert FrameStore.open(tmp_path / "changed").settings == SETTINGS
    assert content(tmp_path / "changed") == content(tmp_path / "fresh")


def test_frames_of_another_shape_are_refused(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path, SETTINGS, shard_clips=3)
    with pytest.raises(InputError, match="'a'"):
        writer.add("a", ClipFrames(np.zeros((4, 16, 16, 3), np.uint8), (0.0,), (), 1.0))


def kill_while_writing(root: Path, after: int) -> None:
    """Run in a child: dies by the system's hand after `after` clips, in the middle of a shard's write."""
    writer = PartWriter(root, SETTINGS, shard_clips=3)
    for number, clip_id in enumerate(CLIP_IDS):
        if number == after:
            (root / "shard-00009.safetensors.unfinished").write_bytes(b"half a shard")
            os.kill(os.getpid(), signal.SIGKILL)
        writer.add(clip_id, clip(number))


@pytest.mark.parametrize(("after", "kept"), [(2, 0), (3, 3), (5, 3), (6, 6)])
def test_a_run_that_is_killed_loses_the_unfinished_shard_only(tmp_path: Path, after: int, kept: int) -> None:
    assert in_a_fork(kill_while_writing, tmp_path / "s", after) == -signal.SIGKILL
    with pytest.raises(InputError, match="run the frames stage"):
        FrameStore.open(tmp_path / "s")
    assert done(tmp_path / "s", SETTINGS, digests(CLIP_IDS)) == set(CLIP_IDS[:kept])
    fill(tmp_path / "s", CLIP_IDS)
    fill(tmp_path / "whole", CLIP_IDS)
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_a_damaged_shard_is_made_again(tmp_path: Path) -> None:
    fill(tmp_path, CLIP_IDS)
    before = content(tmp_path)
    (tmp_path / "shard-00001.safetensors").write_bytes(before["shard-00001.safetensors"][:100])
    assert done(tmp_path, SETTINGS, digests(CLIP_IDS)) == {*CLIP_IDS[:3], CLIP_IDS[6]}
    fill(tmp_path, CLIP_IDS)
    assert content(tmp_path) == before


def fill_a_disk(root: Path) -> None:
    """Run in a child: no file may grow beyond 500 bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    writer = PartWriter(root, SETTINGS, shard_clips=3)
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        for number in range(3):
            writer.add(f"new-{number}", clip(number))


def test_a_disk_that_is_full_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    fill(tmp_path, CLIP_IDS)
    before = content(tmp_path)
    assert in_a_fork(fill_a_disk, tmp_path) == 0
    assert content(tmp_path) == before


def test_an_open_store_can_be_given_to_other_processes(tmp_path: Path) -> None:
    fill(tmp_path, CLIP_IDS)
    store = pickle.loads(pickle.dumps(FrameStore.open(tmp_path)))
    assert (store.read("a").frames == clip(2).frames).all()


def test_reading_frames_loads_neither_a_video_library_nor_torch() -> None:
    unwanted = "('torch', 'av', 'mlflow', 'dvc')"
    code = f"import sys, cinetune.frames.store; print([name for name in {unwanted} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize("place", ["shard-00000.safetensors", "shard-00002.safetensors"])
def test_a_flipped_bit_among_the_pixels_is_found_and_made_good(tmp_path: Path, place: str) -> None:
    fill(tmp_path, CLIP_IDS)
    before = content(tmp_path)
    shard = tmp_path / place
    shard.write_bytes(before[place][:-1] + bytes([before[place][-1] ^ 1]))
    there = done(tmp_path, SETTINGS, digests(CLIP_IDS), is_full=True)
    assert there < set(CLIP_IDS)
    fill(tmp_path, CLIP_IDS)
    assert content(tmp_path) == before


def test_another_decoding_code_replaces_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, CLIP_IDS)
    for module in (store_module, writer_module):
        monkeypatch.setattr(module, "code_digest", lambda: "another")
    assert done(tmp_path, SETTINGS, digests(CLIP_IDS)) == set()
    with pytest.raises(InputError, match="code"):
        PartWriter(tmp_path, SETTINGS, shard_clips=3)
    prepare(tmp_path, SETTINGS)
    assert set(content(tmp_path)) == {"settings.json"}


def test_the_decoding_code_is_what_the_decoding_process_loads() -> None:
    code = "import sys, cinetune.frames.worker; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    package = "cinetune.frames."
    modules = {name.removeprefix(package) for name in loaded if name.startswith(package)}
    # A package's own file says nothing.
    assert modules - {"video"} == set(DECODING_CODE)


def test_a_clip_whose_file_is_gone_keeps_its_frames(tmp_path: Path) -> None:
    fill(tmp_path, CLIP_IDS)
    before = content(tmp_path)
    without = digests(CLIP_IDS) | {"a": ""}
    assert "a" in done(tmp_path, SETTINGS, without)
    join(tmp_path, SETTINGS, 3, without)
    assert content(tmp_path) == before
