"""What sharing a clip's reading saves in evaluation, and how long the statistics and the report take.

Takes the base model and the questions of params.yaml; frames are random, for they cost the same whatever they show.
Times are of this process's CPU, medians of several rounds, each way timed in every round. Run it from the project's
root with `python benchmarks/evaluation.py`; the last line is JSON.
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

import numpy as np
import pandas as pd
import torch

from cinetune import params
from cinetune.cinepile import questions
from cinetune.cinepile.questions import CATEGORIES
from cinetune.evaluation import ablations, metrics
from cinetune.inference import replies
from cinetune.model.base import load_base
from cinetune.model.encoder import encoder_for
from cinetune.report import evaluation_report

# Tokens of the 7B model with 8 frames: instruction, subtitles and video; one question; questions of a clip.
PREFIX_TOKENS, QUESTION_TOKENS, QUESTIONS = 2056 + 620, 160, 32
ROTATIONS = ("none", *ablations.ROTATIONS)


def tokens_read() -> dict[str, float]:
    """Ratios to one plain pass over a clip, at the lengths of the 7B model."""
    plain = PREFIX_TOKENS + QUESTIONS * QUESTION_TOKENS
    shared = PREFIX_TOKENS + len(ROTATIONS) * QUESTIONS * QUESTION_TOKENS
    separate = len(ROTATIONS) * QUESTIONS * (PREFIX_TOKENS + QUESTION_TOKENS)
    return {"rotations_tokens_over_plain": shared / plain, "separate_tokens_over_plain": separate / plain}


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def sharing(num_clips: int, rounds: int) -> dict[str, float]:
    """CPU seconds a clip: one plain pass, five rotations behind one reading, five rotations asked one by one."""
    chosen = params.load()
    base, tokenizer = load_base(chosen.model, "cpu")
    encoder = encoder_for(base.config, tokenizer, chosen.frames.num_frames, chosen.prompt.max_subtitle_tokens)
    clips = questions.load(chosen.data.root, "test")[:num_clips]
    shape = (chosen.frames.num_frames, chosen.frames.size, chosen.frames.size, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    per_pack = chosen.evaluate.questions_per_pack

    def ask(names: tuple[str, ...], is_shared: bool) -> None:
        for clip in clips:
            # One letter each, so that what is compared is reading and not how long a model rambles on.
            if is_shared:
                replies.reply_to_clip(base, encoder, clip, frames, names, per_pack, 1)
                continue
            for question in clip.questions:
                alone = questions.ClipQuestions(clip.clip_id, clip.film, clip.subtitles, (question,))
                for name in names:
                    replies.reply_to_clip(base, encoder, alone, frames, (name,), 1, 1)

    ways = {
        "plain": lambda: ask(("none",), True),
        "rotations": lambda: ask(ROTATIONS, True),
        "separate": lambda: ask(ROTATIONS, False),
    }
    ways["plain"]()
    times = [{name: cpu_seconds(way) / num_clips for name, way in ways.items()} for _ in range(rounds)]
    return {name: statistics.median(row[name] for row in times) for name in ways}


def make_predictions(num_questions: int, skill: float, seed: int) -> pd.DataFrame:
    """Predictions of the size of CinePile's test split, 32 questions a clip."""
    generator = np.random.default_rng(seed)
    gold = np.random.default_rng(0).integers(5, size=num_questions)
    chosen = np.where(generator.random(num_questions) < skill, gold, generator.integers(5, size=num_questions))
    shares = generator.dirichlet(np.ones(5), size=num_questions)
    clip = np.arange(num_questions) // QUESTIONS
    letters = np.array(list("ABCDE"))
    table = pd.DataFrame(
        {
            "question_id": [f"clip{c:05d}-{q % QUESTIONS:03d}" for q, c in enumerate(clip)],
            "clip_id": [f"clip{c:05d}" for c in clip],
            "film": [f"film {c // 2} (1990)" for c in clip],
            "year": pd.array(1930 + clip % 90, dtype="Int64"),
            "genres": np.array(["Drama", "Drama|Crime", "Comedy", "Horror|Mystery", "War"])[clip % 5],
            "url": "",
            "category": np.random.default_rng(1).permutation(np.resize(list(CATEGORIES), num_questions)),
            "hard_split": np.where(np.arange(num_questions) % 3 == 0, "True", "False"),
            "visual_reliance": (np.arange(num_questions) % 2).astype(str),
            "question": "What happens?",
            "rotation": 0,
            "gold": letters[gold],
            "raw": letters[chosen],
            "abstained": False,
            "status": "ok",
            "reason": "",
        }
    )
    table = table.assign(**dict.fromkeys(metrics.SCORERS, letters[chosen]))

    return table.assign(**{f"p_{letter}": shares[:, place] for place, letter in enumerate(letters)})


def statistics_and_report(num_questions: int, resamples: int) -> dict[str, float]:
    """Seconds of wall clock: metrics.json of one model, and a whole report of two."""
    base, finetuned = make_predictions(num_questions, 0.05, 1), make_predictions(num_questions, 0.3, 2)
    started = time.perf_counter()
    summaries = [
        metrics.summarise(rows, "m", "CinePile-v1", "test", None, resamples, 7, "clips", 0.2251)
        for rows in (base, finetuned)
    ]
    summarised = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        evaluation_report.write(folder, *summaries, base, finetuned, "v1", None, bootstrap_samples=resamples, seed=7)
    return {"statistics_s": (summarised - started) / 2, "statistics_and_report_s": time.perf_counter() - started}


def machine() -> dict[str, str | int | None]:
    return {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--clips", type=int, default=3)
    arguments.add_argument("--rounds", type=int, default=5)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    seconds = sharing(chosen.clips, chosen.rounds)
    figures = {
        "rotations_over_plain": seconds["rotations"] / seconds["plain"],
        "separate_over_rotations": seconds["separate"] / seconds["rotations"],
        **tokens_read(),
        **statistics_and_report(5000, 2000),
    }
    rows = {f"{name}, CPU s a clip": value for name, value in seconds.items()} | figures
    for name, value in rows.items():
        print(f"{name:<34}{value:>10.3f}")
    figures = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"benchmark": "evaluation", "machine": machine(), "figures": figures}))


if __name__ == "__main__":
    main()
