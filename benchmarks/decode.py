"""What eight exact frames of a clip cost, against decoding everything, torchcodec and decord; and what a store costs.

    python benchmarks/decode.py [--seconds 160] [--clips 10000]

Processor seconds are those of this process and its decoding child together. torchcodec and decord are left out
where they cannot be loaded (`pip install 'cinetune[bench]'`; torchcodec needs FFmpeg's libraries).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import footage
import numpy as np

from cinetune.frames.decoder import Decoder, read_many
from cinetune.frames.encoding import encode
from cinetune.frames.executors import Work, here
from cinetune.frames.limits import Limits
from cinetune.frames.sampling import ClipFrames, FrameSettings, choose_times, fit
from cinetune.frames.store import FrameStore, plan
from cinetune.frames.video.cuts import find_cuts, find_cuts_in_all
from cinetune.frames.video.playhead import open_video
from cinetune.frames.video.timeline import read_timeline
from cinetune.frames.writer import PartWriter, join

EXACT = FrameSettings("uniform", num_frames=8, size=224, cut_threshold=27.0, min_shot_frames=15)
KEYFRAME = FrameSettings("uniform", 8, 224, 27.0, 15, seek="keyframe")
SHOTS = FrameSettings("shots", 8, 224, 27.0, 15)
SMALL = FrameSettings("uniform", num_frames=8, size=32, cut_threshold=27.0, min_shot_frames=15)
LIMITS = Limits(timeout_s=120.0, max_megapixels=9.0, max_duration_s=900.0, memory_mb=2048, max_frames=108_000)
ROUNDS = 7
QUESTIONS_A_CLIP = 32
STORED_CLIPS = 256
SHARD_CLIPS = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=160.0, help="length of the clip")
    parser.add_argument("--clips", type=int, default=10_000, help="of the run that shows whether cost stays flat")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = footage.write(Path(folder) / "clip.mp4", arguments.seconds)
        print(f"{arguments.seconds:g} s of 640 x 360 at 24 frames/s, H.264, {path.stat().st_size / 1e6:.1f} MB\n")
        figures |= compare(path)
        figures |= measure_cuts(Path(folder), arguments.seconds / 8)
        figures |= scale_workers(path)
        figures |= measure_store(Path(folder) / "store")
        figures |= measure_growth(Path(folder), arguments.clips)
    rounded = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"benchmark": "decode", "machine": machine(), "figures": rounded}))


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor()}, {len(os.sched_getaffinity(0))} processors"


# ---- one clip


def compare(path: Path) -> dict[str, float]:
    """Medians over rounds in which every way has its turn, so that a busy moment falls on all."""
    with Decoder(LIMITS) as decoder:
        ways: dict[str, Callable[[], object]] = {
            "ours, exact": lambda: decoder.read(path, EXACT),
            "ours, keyframe": lambda: decoder.read(path, KEYFRAME),
            "ours, shots": lambda: decoder.read(path, SHOTS),
            "decode everything": lambda: decode_everything(path),
        } | other_libraries(path)
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way()  # the first time also starts the child and fills caches
        for _ in range(ROUNDS):
            for name, way in ways.items():
                began = processor_s()
                way()
                spent[name].append(processor_s() - began)
    cost = {name: statistics.median(values) for name, values in spent.items()}
    for name, seconds in cost.items():
        print(f"{name:<24}{seconds:8.3f} CPU s a clip")
    figures = {
        "everything_over_ours": cost["decode everything"] / cost["ours, exact"],
        "exact_cpu_s": cost["ours, exact"],
        "keyframe_cpu_s": cost["ours, keyframe"],
        "shots_cpu_s": cost["ours, shots"],
    }
    for name in ("torchcodec", "decord"):
        if name in cost:
            figures[f"ours_over_{name}"] = cost["ours, exact"] / cost[name]
    return figures


def processor_s() -> float:
    """Of this process and its children so far; unlike the clock it does not mind who else is at work."""
    children = [pid for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()]
    return (
        time.process_time() + sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in children) / 1e9
    )


def decode_everything(path: Path) -> np.ndarray:
    """The seed's way: every frame is decoded, eight are kept."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = set(np.linspace(0, stream.frames - 1, EXACT.num_frames).astype(int).tolist())
        frames = [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(stream)) if i in wanted]
    return np.stack([fit(frame, EXACT.size) for frame in frames])


def other_libraries(path: Path) -> dict[str, Callable[[], object]]:
    ways: dict[str, Callable[[], object]] = {}
    try:
        import torch
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError):
        print("torchcodec is left out: it is not installed, or finds no FFmpeg")
    else:
        torch.set_num_threads(1)

        def by_torchcodec() -> object:
            video = VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
            times = choose_times(video.metadata.duration_seconds, (), EXACT)
            return [fit(frame, EXACT.size) for frame in video.get_frames_played_at(times).data.numpy()]

        ways["torchcodec"] = by_torchcodec
    try:
        import decord
    except ImportError as error:
        print(f"decord is left out: {error}")
    else:

        def by_decord() -> object:
            video = decord.VideoReader(str(path), num_threads=1)
            step = len(video) / EXACT.num_frames
            chosen = [int((i + 0.5) * step) for i in range(EXACT.num_frames)]
            return [fit(frame, EXACT.size) for frame in video.get_batch(chosen).asnumpy()]

        ways["decord"] = by_decord
    return ways


# ---- cuts

EDITS = ("cuts", "fades", "flashes", "fast", "dim")
ENCODINGS = {
    "as a site offers it": {"preset": "fast", "crf": "26", "g": "120", "x264-params": "scenecut=0:bframes=3:ref=3"},
    "keyframes at cuts": {"preset": "veryfast", "crf": "23", "g": "250"},
    "no B-frames": {"preset": "veryfast", "crf": "28", "g": "48", "x264-params": "bframes=0"},
    "many B-frames": {"preset": "veryfast", "crf": "23", "g": "250", "x264-params": "bframes=8:b-adapt=2:b-pyramid=2"},
}


def measure_cuts(folder: Path, seconds: float) -> dict[str, float]:
    """How often the rough look finds the cuts that every frame gives, and what each costs."""
    found: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
    spent = {"rough": 0.0, "all": 0.0}
    for seed, edit in enumerate(EDITS):
        images = list(footage.edited(edit, seconds, seed))
        for name, options in ENCODINGS.items():
            path = footage.encode(folder / "cuts.mp4", images, options)
            with path.open("rb", buffering=0) as file:
                opened = open_video(file, LIMITS)
                timeline = read_timeline(*opened, LIMITS)
                opened[0].close()
                results = []
                for kind, search in (("rough", find_cuts), ("all", find_cuts_in_all)):
                    began = time.process_time()
                    results.append(search(file, timeline, SHOTS, LIMITS, 0.0, timeline.duration_s))
                    spent[kind] += time.process_time() - began
            rough, exact = results
            found.append((rough, exact))
            if rough != exact:
                print(f"{edit}, {name}: {rough} instead of {exact}")
    equal = sum(rough == exact for rough, exact in found) / len(found)
    close = sum(_within_a_frame(rough, exact) for rough, exact in found) / len(found)
    total, share = sum(len(exact) for _, exact in found), spent["rough"] / spent["all"]
    print(f"\n{total} cuts of {len(found)} clips of {seconds:g} s: equal to those of every frame in {equal:.1%}, "
          f"within a frame in {close:.1%}; for {share:.2f} of the processor time")  # fmt: skip
    return {"cuts_equal": equal, "cuts_within_a_frame": close, "cuts_cost_over_every_frame": share}


def _within_a_frame(some: tuple[float, ...], others: tuple[float, ...]) -> bool:
    frame_s = 1.01 / footage.FPS
    return len(some) == len(others) and all(abs(a - b) < frame_s for a, b in zip(some, others, strict=True))


# ---- many clips


def scale_workers(path: Path) -> dict[str, float]:
    """Clips a second of two workers over one, and what a clip costs with two over what it costs with one."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    costs: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for workers in rates:
            results = read_many(iter([(str(number), path) for number in range(12 * workers)]), EXACT, LIMITS, workers)
            # The first clips wait for their children to start; what is measured is the pace afterwards.
            next(results)
            began, spent, count = time.perf_counter(), processor_s(), 10 * workers
            for _ in range(count):
                next(results)
            rates[workers].append(count / (time.perf_counter() - began))
            costs[workers].append((processor_s() - spent) / count)
            results.close()
    (one, two), (cost_of_one, cost_of_two) = ([statistics.median(v) for v in kind.values()] for kind in (rates, costs))
    print(f"\n1 worker {one:.2f} clips/s, 2 workers {two:.2f}; {cost_of_one:.3f} and {cost_of_two:.3f} CPU s a clip")
    return {"two_workers_over_one": two / one, "cost_with_two_over_one": cost_of_two / cost_of_one}


def measure_store(root: Path) -> dict[str, float]:
    """Size against one copy a question, and a warm read of a random clip."""
    rng = np.random.default_rng(0)
    clip_ids = [f"clip{number:07d}" for number in range(STORED_CLIPS)]
    with PartWriter(root, EXACT, SHARD_CLIPS) as writer:
        for clip_id in clip_ids:
            frames = rng.integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
            times = tuple(float(second) for second in range(8))
            writer.add(clip_id, ClipFrames(frames, times, times * 5, 160.0))
    join(root, EXACT, SHARD_CLIPS, dict.fromkeys(clip_ids, ""))
    store = FrameStore.open(root)
    order = [store.clip_ids[i] for i in rng.integers(0, STORED_CLIPS, 4 * STORED_CLIPS)]
    for clip_id in store.clip_ids:
        store.read(clip_id)
    spent = []
    for clip_id in order:
        began = time.perf_counter()
        frames = store.read(clip_id).frames
        frames.sum()
        spent.append(time.perf_counter() - began)
    size = sum(path.stat().st_size for path in root.iterdir()) / STORED_CLIPS
    copies = QUESTIONS_A_CLIP * 8 * 224 * 224 * 3
    median_ms = 1000 * statistics.median(spent)
    print(
        f"store: {size / 1e6:.3f} MB a clip, 1/{copies / size:.1f} of a copy a question; random read {median_ms:.2f} ms"
    )
    return {"store_share": size / copies, "warm_read_ms": median_ms}


def measure_growth(folder: Path, most: int) -> dict[str, float]:
    """Processor seconds a clip and memory of a run over many small clips, at its beginning and at its end."""
    clips = folder / "clips"
    clips.mkdir()
    rng = np.random.default_rng(0)
    encode(folder / "small.mp4", rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8), 12)
    clip_ids = [f"clip{number:07d}" for number in range(most)]
    for clip_id in clip_ids:
        (clips / f"{clip_id}.mp4").hardlink_to(folder / "small.mp4")
    work = Work(folder / "many", clips, SMALL, LIMITS, workers=1)
    paces, memory = [], []
    began = processor_s()
    for number, _ in enumerate(here(work, plan(clip_ids, SHARD_CLIPS)), start=1):
        if number % 100 == 0:
            paces.append((processor_s() - began) / 100)
            memory.append(resident_mb())
            began = processor_s()
    began = time.process_time()
    join(work.root, SMALL, SHARD_CLIPS, dict.fromkeys(clip_ids, ""))
    joined_s = time.process_time() - began
    tenth = max(1, len(paces) // 10)
    # The first hundred clips also wait for the child to start.
    first, last = statistics.median(paces[1 : 1 + tenth]), statistics.median(paces[-tenth:])
    print(f"{most} clips: {1000 * first:.2f} CPU ms a clip in the first tenth, {1000 * last:.2f} in the last; "
          f"{memory[0]:.0f} MB at first, {memory[-1]:.0f} at the end; joined in {joined_s:.2f} CPU s")  # fmt: skip
    return {"last_over_first_cost": last / first, "last_over_first_memory": memory[-1] / memory[0], "join_s": joined_s}


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
