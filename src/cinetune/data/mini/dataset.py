"""Write CinePile-mini: clips as H.264, questions in CinePile's columns, films of training and test apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cinetune.data.mini import ask, draw, story, talk
from cinetune.frames.encoding import encode
from cinetune.params import MiniParams
from cinetune.task.description import CINEPILE

FULL_CATEGORY = {short.upper(): full for short, full in CINEPILE.categories.items()}


def clip_id(film: story.Film, index: int) -> str:
    """11 characters, as many as a YouTube id has."""
    return f"mini{film.film_id:04d}_{index:02d}"


def make(root: Path, params: MiniParams, workers: int) -> dict[str, int]:
    """Write `questions/`, `clips/` and `clips.parquet` under `root`; the same bytes for the same parameters."""
    clips = invent(params)
    (root / "questions").mkdir(parents=True, exist_ok=True)
    everything = [clip for split in clips.values() for clip in split]
    write_clips(root / "clips", {clip_id(clip.film, clip.index): clip for clip in everything}, workers)
    counts = {"clips": len(everything)}
    for split, members in clips.items():
        questions = table(members, params.seed)
        questions.to_parquet(root / "questions" / f"{split}.parquet", index=False)
        counts[f"{split}_questions"] = len(questions)
    manifest(everything).to_parquet(root / "clips.parquet", index=False)
    return counts


def invent(params: MiniParams) -> dict[str, list[story.Clip]]:
    """The clips of each split; no film is in both."""
    films = {
        "train": [story.make_film(params.seed, i, story.FILM) for i in range(params.train_films)],
        "test": [story.make_film(params.seed, params.train_films + i, story.FILM) for i in range(params.test_films)],
    }
    return {
        split: [story.make_clip(params.seed, film, index) for film in cast for index in range(params.clips_per_film)]
        for split, cast in films.items()
    }


def write_clips(folder: Path, clips: Mapping[str, story.Clip], workers: int) -> None:
    """Draw clips, by id, as <folder>/<id>.mp4."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(partial(_write_clip, folder), clips.items(), chunksize=4))


def _write_clip(folder: Path, named: tuple[str, story.Clip]) -> None:
    name, clip = named
    encode(folder / f"{name}.mp4", (draw.render(clip, frame) for frame in range(clip.num_frames)), story.FPS)


def _link(clip: story.Clip) -> str:
    return f"clips/{clip_id(clip.film, clip.index)}.mp4"


def manifest(clips: Sequence[story.Clip]) -> pd.DataFrame:
    """`clips.parquet`: where each clip came from and that it is there."""
    return pd.DataFrame(
        {
            "clip_id": clip_id(clip.film, clip.index),
            "url": _link(clip),
            "film": f"{clip.film.name} ({clip.film.year})",
            "status": "ok",
            "reason": "",
            "attempts": 1,
            "duration_s": clip.duration_s,
        }
        for clip in clips
    )


def table(clips: Sequence[story.Clip], seed: int) -> pd.DataFrame:
    """Questions of one split. The right option's place goes through shuffled rounds of all five, kind by kind."""
    rng = np.random.default_rng((seed, 21))
    rounds: dict[str, list[int]] = {}
    rows: list[dict[str, Any]] = []
    for clip in clips:
        subtitles = talk.subtitles(clip)
        for question in ask.select(clip, rng):
            waiting = rounds.setdefault(question.kind, [])
            if not waiting:
                waiting += (int(i) for i in rng.permutation(ask.NUM_CHOICES))
            position = waiting.pop()
            rows.append(
                {
                    "movie_name": clip.film.name,
                    "year": clip.film.year,
                    "genre": list(clip.film.genre),
                    "yt_clip_title": f"{clip.film.name} ({clip.film.year}) - Scene {clip.index + 1}",
                    "yt_clip_link": _link(clip),
                    "movie_scene": f"{ask.describe(clip)}\n{subtitles}",
                    "subtitles": subtitles,
                    "question": question.text,
                    "choices": list(question.choices(rng, position)),
                    "answer_key": question.answer,
                    "answer_key_position": position,
                    "question_category": FULL_CATEGORY[question.category],
                    "hard_split": str(question.hard),
                    "visual_reliance": "0" if question.needs == ask.SUBTITLES else "1",
                    "clip_id": clip_id(clip.film, clip.index),
                }
            )
    return pd.DataFrame(rows, columns=list(CINEPILE.columns.values()))
