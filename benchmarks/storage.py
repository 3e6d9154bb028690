"""In what to keep eight 224 x 224 frames a clip: size, cost of writing, cost of reading one clip at random.

python benchmarks/storage.py [--clips 256]
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import footage
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from decode import LIMITS, machine
from PIL import Image

from cinetune.frames.decoder import Decoder
from cinetune.frames.sampling import ClipFrames, FrameSettings
from cinetune.frames.store import FrameStore
from cinetune.frames.writer import PartWriter, join

SETTINGS = FrameSettings("uniform", num_frames=8, size=224, cut_threshold=27.0, min_shot_frames=15)
SHARD_CLIPS = 128
JPEG_QUALITY = 90
ROUNDS = 3
Reader = Callable[[int], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=256)
    clips = film_frames(parser.parse_args().clips)
    order = np.random.default_rng(0).permutation(len(clips))
    ways: dict[str, Callable[[Path, Sequence[np.ndarray]], Reader]] = {
        "safetensors": safetensors,
        "raw + index": raw,
        "npz, deflated": deflated,
        "tar of JPEG": tar_of_jpeg,
        "Parquet of JPEG": parquet_of_jpeg,
        "datasets, Image": datasets_of_jpeg,
    }
    figures: dict[str, float] = {}
    print(f"{len(clips)} clips, 8 frames of 224 x 224 each, decoded from film-like footage; medians of {ROUNDS}\n")
    print(f"{'storage':<18}{'MB a clip':>12}{'write ms':>12}{'read ms':>12}{'level off':>12}")
    for name, way in ways.items():
        size, write_ms, read_ms, error = measure(way, clips, order)
        print(f"{name:<18}{size:>12.3f}{write_ms:>12.2f}{read_ms:>12.2f}{error:>12.2f}")
        key = "".join(letter if letter.isalnum() else "_" for letter in name)
        figures |= {f"{key}_mb": size, f"{key}_write_ms": write_ms, f"{key}_read_ms": read_ms}
    print(json.dumps({"benchmark": "storage", "machine": machine(), "figures": figures}))


def film_frames(count: int) -> list[np.ndarray]:
    """Eight frames that stand close together a clip, as a decoder gives them; uint8 [8, 224, 224, 3]."""
    settings = FrameSettings("uniform", num_frames=count * 8, size=224, cut_threshold=27.0, min_shot_frames=15)
    with tempfile.TemporaryDirectory() as folder, Decoder(LIMITS) as decoder:
        path = footage.write(Path(folder) / "clip.mp4", seconds=max(8.0, count * 8 / footage.FPS))
        return list(decoder.read(path, settings).frames.reshape(count, 8, 224, 224, 3))


def measure(
    way: Callable[[Path, Sequence[np.ndarray]], Reader], clips: Sequence[np.ndarray], order: Sequence[int]
) -> tuple[float, float, float, float]:
    """MB a clip, milliseconds a clip to write and to read, mean difference of a level."""
    writes, reads = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            began = time.perf_counter()
            read = way(Path(name), clips)
            writes.append(1000 * (time.perf_counter() - began) / len(clips))
            size = sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file()) / len(clips) / 1e6
            error = float(np.mean([np.abs(read(i).astype(int) - clips[i]).mean() for i in order[:16]]))
            for i in order:
                began = time.perf_counter()
                read(int(i)).sum()
                reads.append(1000 * (time.perf_counter() - began))
    return size, statistics.median(writes), statistics.median(reads), error


def safetensors(root: Path, clips: Sequence[np.ndarray]) -> Reader:
    with PartWriter(root, SETTINGS, SHARD_CLIPS) as writer:
        for number, frames in enumerate(clips):
            writer.add(str(number), ClipFrames(frames, tuple(map(float, range(8))), (), 160.0))
    join(root, SETTINGS, SHARD_CLIPS, {str(number): "" for number in range(len(clips))})
    store = FrameStore.open(root)
    return lambda i: store.read(str(i)).frames


def raw(root: Path, clips: Sequence[np.ndarray]) -> Reader:
    np.save(root / "frames.npy", np.stack(clips))
    frames = np.load(root / "frames.npy", mmap_mode="r")
    return lambda i: np.array(frames[i])


def deflated(root: Path, clips: Sequence[np.ndarray]) -> Reader:
    for number, frames in enumerate(clips):
        np.savez_compressed(root / f"{number}.npz", frames=frames)
    return lambda i: np.load(root / f"{i}.npz")["frames"]


def to_jpeg(frames: np.ndarray) -> list[bytes]:
    files = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY)
        files.append(file.getvalue())
    return files


def from_jpeg(files: Sequence[bytes]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(content))) for content in files])


def tar_of_jpeg(root: Path, clips: Sequence[np.ndarray]) -> Reader:
    places: dict[tuple[int, int], tuple[int, int]] = {}
    with tarfile.open(root / "frames.tar", "w") as tar:
        for number, frames in enumerate(clips):
            for place, content in enumerate(to_jpeg(frames)):
                member = tarfile.TarInfo(f"{number}/{place}.jpg")
                member.size = len(content)
                places[number, place] = (tar.offset + tarfile.BLOCKSIZE, len(content))
                tar.addfile(member, io.BytesIO(content))

    def read(i: int) -> np.ndarray:
        with (root / "frames.tar").open("rb") as file:
            found = []
            for place in range(8):
                start, length = places[i, place]
                file.seek(start)
                found.append(file.read(length))
        return from_jpeg(found)

    return read


def parquet_of_jpeg(root: Path, clips: Sequence[np.ndarray]) -> Reader:
    table = pa.table({"frames": [to_jpeg(frames) for frames in clips]})
    pyarrow.parquet.write_table(table, root / "frames.parquet", row_group_size=16, compression="none")
    file = pyarrow.parquet.ParquetFile(root / "frames.parquet")
    return lambda i: from_jpeg(file.read_row_group(i // 16).column("frames")[i % 16].as_py())


def datasets_of_jpeg(root: Path, clips: Sequence[np.ndarray]) -> Reader:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"frames": datasets.List(datasets.Image())})
    rows = {"frames": [[{"bytes": content, "path": None} for content in to_jpeg(frames)] for frames in clips]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(root / "frames")
    table = datasets.load_from_disk(root / "frames")
    return lambda i: np.stack([np.asarray(image) for image in table[i]["frames"]])


if __name__ == "__main__":
    main()
