"""Time and memory of importing many questions: rows, checks, links of files and the tables that are written.

    python benchmarks/importing.py [--questions 100000] [--clips 5000]

The videos are hard links to one small file: what is measured is everything but cutting.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from decode import machine

from cinetune.data.importing import importer
from cinetune.params import ImportParams

CHOICES = "at home|at sea|in town|in the hills"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--clips", type=int, default=5_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        videos, table = folder / "videos", folder / "mine.csv"
        videos.mkdir()
        first = videos / "0.mp4"
        first.write_bytes(b"no video, and none is opened")
        for number in range(1, asked.clips):
            os.link(first, videos / f"{number}.mp4")
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["video", "question", "choices", "answer", "category", "group", "subtitles"])
            for number in range(asked.questions):
                clip = number % asked.clips
                subtitles = f"Line of clip {clip}. " * 20
                question = f"Question {number}, where is the one who was there before?"
                row = [
                    f"{clip}.mp4",
                    question,
                    CHOICES,
                    "ABCD"[number % 4],
                    f"kind {number % 5}",
                    f"group {clip // 10}",
                ]
                writer.writerow([*row, subtitles])
        params = ImportParams(str(table), "", str(videos), str(folder / "out"), "plain", 0.2, 1, "", "", "")
        began, used = time.monotonic(), time.process_time()
        found = importer.run(params, lambda links: {}, 60.0, 1.0).found
        wall_s, cpu_s = time.monotonic() - began, time.process_time() - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    counts = ", ".join(f"{split} {of['questions']}" for split, of in found["splits"].items())
    print(f"{found['rows']} rows over {asked.clips} clips ({counts})")
    print(f"{wall_s:.1f} s, of the processor {cpu_s:.1f} s, {memory:.2f} GB")
    figures = {"seconds": round(wall_s, 1), "core seconds": round(cpu_s, 1), "GB": round(memory, 2)}
    print(json.dumps({"benchmark": "importing", "machine": machine(), "figures": figures}))


if __name__ == "__main__":
    main()
