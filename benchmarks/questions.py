"""Memory and seconds of what every process does with the questions, at the number and size of CinePile's.

    python benchmarks/questions.py --rows 20000     # a part of it
    python benchmarks/questions.py                  # 298,888 rows

The rows are drawn, in CinePile's columns: 32 questions a clip, texts of the usual lengths, a scene beside them that is
never read. Each step is a process of its own, and its memory is what the system says that it held at most. Needs no
GPU; the dry run plans with the base model in base-model/.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import yaml
from decode import machine
from rehearsal import child_environment

from cinetune.data.intake import SCHEMA
from cinetune.task.description import CINEPILE

ROWS, QUESTIONS_A_CLIP, CLIPS_A_FILM = 298_888, 32, 5
SCENE, SUBTITLES, QUESTION, CHOICE = 4_000, 1_900, 80, 80
TEXT = "the room a key opens door she he looks at walks away from rope lamp map ring night river says again "
STEPS = {
    "questions.load": "questions.load({root!r}, 'train')",
    "frames, its ids": "questions.clip_ids_of({root!r}, 'train')",
    "train --dry-run": "train.main(['--dry-run', '--params', {params!r}])",
}


def text(generator: random.Random, length: int) -> str:
    """Some of the words over and over, from a place that is drawn."""
    first = generator.randrange(len(TEXT))
    return (TEXT[first:] + TEXT * (length // len(TEXT) + 1))[:length].strip()


def write_questions(path: Path, num_rows: int) -> None:
    """Row by row, so that little memory is needed."""
    generator, categories = random.Random(0), list(CINEPILE.shorts)
    with pyarrow.parquet.ParquetWriter(path, SCHEMA) as writer:
        for first in range(0, num_rows, 32 * QUESTIONS_A_CLIP):
            rows = []
            for number in range(first, min(num_rows, first + 32 * QUESTIONS_A_CLIP)):
                clip = number // QUESTIONS_A_CLIP
                if number % QUESTIONS_A_CLIP == 0 or not rows:
                    scene, subtitles = text(generator, SCENE), "<subtitle> " + text(generator, SUBTITLES)
                choices = [f"{text(generator, CHOICE - 2)} {place}" for place in range(5)]
                place = generator.randrange(5)
                rows.append(
                    {
                        "clip_id": f"clip{clip:07d}",
                        "movie_name": f"Film {clip // CLIPS_A_FILM}",
                        "year": 1990 + clip // CLIPS_A_FILM % 30,
                        "genre": ["Drama", "Comedy"],
                        "yt_clip_title": f"Scene {clip}",
                        "yt_clip_link": f"https://youtube.com/watch?v=clip{clip:07d}",
                        "movie_scene": scene,
                        "subtitles": subtitles,
                        "question": text(generator, QUESTION),
                        "choices": choices,
                        "answer_key": choices[place],
                        "answer_key_position": place,
                        "question_category": generator.choice(categories),
                        "hard_split": "False",
                        "visual_reliance": "0",
                    }
                )
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))


def measured(code: str) -> tuple[float, float]:
    """Seconds of one core and gigabytes of a process that runs the code, minus what importing the packages takes."""
    told = (
        "import json, resource, time\n"
        "import cinetune.runtime.cost\n"
        "from cinetune.task import questions\n"
        "from cinetune.stages import train\n"
        "began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"{code}\n"
        "held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "print(json.dumps([time.process_time() - began, held / 1e6]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", told], env=child_environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, gigabytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, gigabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--scratch", type=Path, help="a folder for about 0.6 GB")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="questions-", dir=chosen.scratch) as folder:
        (Path(folder) / "questions").mkdir()
        write_questions(Path(folder) / "questions/train.parquet", chosen.rows)
        params = Path(folder) / "params.yaml"
        params.write_text(yaml.safe_dump({"data": {"root": folder, "name": "drawn"}}), encoding="utf-8")
        print(f"{f'{chosen.rows} rows':<20}{'core s':>12}{'GB':>8}")
        figures = {}
        for name, code in STEPS.items():
            seconds, gigabytes = measured(code.format(root=folder, params=str(params)))
            print(f"{name:<20}{seconds:>12.1f}{gigabytes:>8.2f}", flush=True)
            figures[f"{name}, seconds"], figures[f"{name}, GB"] = round(seconds, 1), round(gigabytes, 2)
        print(json.dumps({"benchmark": "questions", "machine": machine(), "figures": figures}))


if __name__ == "__main__":
    main()
