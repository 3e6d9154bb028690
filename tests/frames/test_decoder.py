"""A child process that decodes, is killed, replaced and shared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from builders.processes import children
from builders.videos import LIMITS, SHOTS, UNIFORM, assert_still_works, numbers, reason, write
from cinetune import sandbox
from cinetune.errors import InputError
from cinetune.frames.decoder import Decoder, read_many
from cinetune.frames.limits import Limits, VideoError
from cinetune.frames.sampling import ClipFrames

pytestmark = pytest.mark.data


def test_a_file_that_changes_while_it_is_read_costs_at_most_itself(
    decoder: Decoder, tmp_path: Path, good: Path
) -> None:
    path, is_over = tmp_path / "clip.mp4", threading.Event()
    content = good.read_bytes()

    def change() -> None:
        rng = np.random.default_rng(0)
        while not is_over.is_set():
            path.write_bytes(content[: int(rng.integers(0, len(content)))])
            path.write_bytes(content)

    path.write_bytes(content)
    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(40):
            try:
                assert decoder.read(path, UNIFORM).frames.shape == (8, 64, 64, 3)
            except VideoError as error:
                assert error.status in ("broken", "not_a_video", "unreadable")
    finally:
        is_over.set()
        writer.join()
    assert_still_works(decoder, good)


def test_one_child_reads_hundreds_of_clips_in_flat_memory(good: Path) -> None:
    before = children()

    def resident() -> int:
        (child,) = children() - before
        return int(Path(f"/proc/{child}/statm").read_text().split()[1]) * 4096

    with Decoder(LIMITS) as decoder:
        sizes = []
        for _ in range(6):
            for _ in range(50):
                decoder.read(good, UNIFORM)
            with pytest.raises(VideoError):
                decoder.read(good.read_bytes()[:2000], UNIFORM)
            sizes.append(resident())
    assert sizes[-1] - sizes[1] < 8_000_000


def test_too_little_memory_costs_one_clip(tmp_path: Path, good: Path) -> None:
    path = write(tmp_path / "big.mp4", [np.zeros((4096, 4096, 3), np.uint8)] * 3, preset="ultrafast")
    with Decoder(Limits(20.0, 40.0, 900.0, 580, 5000)) as decoder:
        assert reason(decoder, path)[0] in ("out_of_memory", "broken")
        assert_still_works(decoder, good)


@contextmanager
def started(good: Path, limits: Limits = LIMITS) -> Iterator[tuple[Decoder, int]]:
    """A decoder that has read a clip, and its child."""
    before = children()
    with Decoder(limits) as decoder:
        assert_still_works(decoder, good)
        (child,) = children() - before
        yield decoder, child


def test_a_pause_that_is_longer_than_the_limit_costs_nothing(good: Path) -> None:
    before = children()
    with started(good, Limits(0.5, 9.0, 900.0, 2048, 5000)) as (decoder, child):
        os.kill(child, signal.SIGSTOP)
        waker = threading.Timer(1.5, os.kill, (child, signal.SIGCONT))
        waker.start()
        assert_still_works(decoder, good)
        waker.join()
        assert children() - before == {child}


def test_a_child_that_stands_still_is_killed_and_the_next_clip_is_read(good: Path) -> None:
    before = children()
    with started(good, Limits(0.2, 9.0, 900.0, 2048, 5000)) as (decoder, child):
        os.kill(child, signal.SIGSTOP)
        with pytest.raises(VideoError, match="stood still") as caught:
            decoder.read(good, UNIFORM)
        assert caught.value.status == "stalled" and caught.value.is_passing
        assert_still_works(decoder, good)
    assert children() == before


@pytest.mark.slow
def test_a_child_that_computes_for_too_long_is_ended_and_the_limit_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (720, 1280, 3), dtype=np.uint8) for _ in range(4)] * 240
    path = write(tmp_path / "long.mp4", images, preset="ultrafast", crf=40)
    with Decoder(Limits(0.01, 9.0, 900.0, 2048, 5000)) as decoder:
        status, text = reason(decoder, path)
    assert status == "timeout" and "processor time" in text and "frames.timeout_s" in text
    # Larger and longer clips may take more.
    with Decoder(Limits(0.01, 9.0, 900.0, 2048, 5000, cpu_s_per_megapixel_s=2.0)) as decoder:
        assert decoder.read(path, UNIFORM).duration_s == pytest.approx(80.0)


def test_a_slow_start_is_no_lack_of_memory(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "START_TIMEOUT_S", 0.01)
    with Decoder(LIMITS) as decoder, pytest.raises(VideoError, match="started in time") as caught:
        decoder.read(good, UNIFORM)
    assert caught.value.is_passing and "memory_mb" not in str(caught.value)


def test_a_child_that_was_killed_is_replaced(good: Path) -> None:
    before = children()
    with started(good) as (decoder, child):
        os.kill(child, signal.SIGKILL)
        time.sleep(0.2)
        assert_still_works(decoder, good)
        assert children() - before not in ({child}, set())
        assert_still_works(decoder, good)


def test_a_child_holds_neither_torch_nor_the_parents_secrets(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    with started(good) as (_, child):
        assert "torch" not in Path(f"/proc/{child}/maps").read_text()
        assert b"SOME_TOKEN" not in Path(f"/proc/{child}/environ").read_bytes()


def test_a_child_ends_with_its_parent(good: Path) -> None:
    code = (
        "import os, sys, pathlib, psutil\n"
        "from cinetune.frames.decoder import Decoder\n"
        "from cinetune.frames.limits import Limits\n"
        "from cinetune.frames.sampling import FrameSettings\n"
        "decoder = Decoder(Limits(20.0, 9.0, 900.0, 2048, 5000))\n"
        "decoder.read(pathlib.Path(sys.argv[1]), FrameSettings('uniform', 1, 8, 30.0, 8))\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(good)], capture_output=True, text=True, timeout=60)
    child = int(done.stdout)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}/exe").exists()


def test_several_threads_may_share_a_decoder(decoder: Decoder, good: Path) -> None:
    results: list[ClipFrames] = []
    threads = [threading.Thread(target=lambda: results.append(decoder.read(good, UNIFORM))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [numbers(clip.frames) for clip in results] == [[6 + 12 * i for i in range(8)]] * 4


def test_a_closed_decoder_says_so(good: Path) -> None:
    decoder = Decoder(LIMITS)
    decoder.close()
    with pytest.raises(InputError, match="closed"):
        decoder.read(good, SHOTS)


def test_many_videos_come_in_the_order_given_and_bad_ones_cost_nothing_else(tmp_path: Path, good: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(good.read_bytes()[:2000])
    paths = [(f"clip-{i}", broken if i % 3 == 1 else good) for i in range(11)]
    results = list(read_many(iter(paths), UNIFORM, partial(Decoder, LIMITS), workers=2))
    assert [name for name, _ in results] == [name for name, _ in paths]
    for i, (name, result) in enumerate(results):
        if i % 3 == 1:
            assert isinstance(result, VideoError) and result.status == "broken" and repr(name) in str(result)
        else:
            assert numbers(result.frames) == [6 + 12 * i for i in range(8)]


def test_no_videos_start_no_child(tmp_path: Path) -> None:
    before = children()
    assert list(read_many([], UNIFORM, partial(Decoder, LIMITS), workers=4)) == []
    assert children() == before


def test_stopping_early_leaves_no_child(good: Path) -> None:
    before = children()
    results = read_many([(str(i), good) for i in range(50)], SHOTS, partial(Decoder, LIMITS), workers=2)
    next(results)
    results.close()
    assert children() == before
