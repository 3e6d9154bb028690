"""What sharing a clip's reading saves in evaluation, how long statistics and report take, and whether these hold.

Takes the base model and the questions of params.yaml; frames are random, for they cost the same whatever they show.
Intervals, p-values and the promotion rules are simulated where the truth is known: coverage should be 95 %, false
alarms 5 %. Times are of this process's CPU, medians of several rounds, each way timed in every round. Run it from the
project's root with `python benchmarks/evaluation.py`; the last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
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
from cinetune.evaluation import ablations, metrics, promotion
from cinetune.evaluation import statistics as estimates
from cinetune.inference import replies
from cinetune.model.base import load_base
from cinetune.model.encoder import encoder_for
from cinetune.report import evaluation_report
from cinetune.task import questions
from cinetune.task.description import CINEPILE

# Tokens of the 7B model with 8 frames: instruction, subtitles and video; one question; questions of a clip.
PREFIX_TOKENS, QUESTION_TOKENS, QUESTIONS = 2056 + 620, 160, 32
ROTATIONS = ("none", *ablations.ROTATIONS)
# What is simulated.
QUESTIONS_OF_CLIP = 16
CLIPS, ACCURACIES, CORRELATIONS = (10, 30, 100, 300), (0.2, 0.5, 0.8, 0.9, 0.98), (0.0, 0.1, 0.2)


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
                alone = questions.ClipQuestions(clip.clip_id, clip.group, clip.subtitles, (question,))
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
            "category": np.random.default_rng(1).permutation(np.resize(list(CINEPILE.shorts), num_questions)),
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


def draw_answers(
    clips: int, accuracy: float, correlation: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong [clips * 16] and each answer's clip; the skill on a clip is drawn from a beta distribution."""
    skill = np.full((clips, 1), accuracy)
    if correlation:
        spread = 1 / correlation - 1
        skill = generator.beta(accuracy * spread, (1 - accuracy) * spread, size=(clips, 1))
    return (generator.random((clips, QUESTIONS_OF_CLIP)) < skill).ravel(), clip_of(clips)


def clip_of(clips: int) -> np.ndarray:
    return np.repeat(np.arange(clips), QUESTIONS_OF_CLIP)


def bootstrap_interval(
    correct: np.ndarray, clusters: np.ndarray, generator: np.random.Generator
) -> tuple[float, float]:
    """The usual percentile bootstrap over clips, for comparison."""
    means = correct.reshape(-1, QUESTIONS_OF_CLIP).mean(axis=1)
    resampled = means[generator.integers(len(means), size=(300, len(means)))].mean(axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def coverage(trials: int) -> dict[str, float]:
    """Percent of trials in which an accuracy's 95 % interval holds the truth; its smallest width over all of them."""
    found, narrowest = {}, 1.0
    print(
        f"{'clips':>6}{'accuracy':>10}{'correlation':>13}{'coverage, %':>13}{'bootstrap, %':>14}{'width, points':>15}"
    )
    for clips, accuracy, correlation in itertools.product(CLIPS, ACCURACIES, CORRELATIONS):
        generator = np.random.default_rng(0)
        held, bootstrap, widths = [], [], []
        for _ in range(trials):
            correct, clusters = draw_answers(clips, accuracy, correlation, generator)
            low, high = estimates.accuracy(correct, clusters)["ci95"]
            held.append(low <= accuracy <= high)
            widths.append(high - low)
            low, high = bootstrap_interval(correct, clusters, generator)
            bootstrap.append(low <= accuracy <= high)
        percents = [100 * float(np.mean(values)) for values in (held, bootstrap, widths)]
        print(f"{clips:>6}{accuracy:>10}{correlation:>13}{percents[0]:>13.1f}{percents[1]:>14.1f}{percents[2]:>15.1f}")
        found[f"coverage_{clips}_{accuracy}_{correlation}"] = percents[0]
        narrowest = min(narrowest, *widths)
    return {
        "coverage_least": min(found.values()),
        "coverage_median": statistics.median(found.values()),
        "coverage_most": max(found.values()),
        "narrowest_interval": narrowest,
    }


def draw_pair(clips: int, effect: float, loss: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two models' answers; each suits half of the clips better by `effect`, and the first is worse by `loss`."""
    skill = generator.uniform(0.35, 0.75, size=(clips, 1))
    shift = effect / 2 * generator.choice([-1, 1], size=(clips, 1))
    first, second = (
        (generator.random((clips, QUESTIONS_OF_CLIP)) < np.clip(chance, 0, 1)).ravel()
        for chance in (skill + shift - loss, skill - shift)
    )
    return first, second


def level(trials: int) -> dict[str, float]:
    """Percent of trials in which equal models, each of which suits some clips, differ at 5 %; coverage likewise."""
    found = {}
    print(f"{'clips':>6}{'effect':>8}{'sign flips, %':>15}{'McNemar, %':>12}{'coverage, %':>13}")
    for clips, effect in itertools.product(CLIPS[:-1], (0.0, 0.2, 0.4)):
        generator, clusters, rows = np.random.default_rng(1), clip_of(clips), []
        for _ in range(trials):
            a, b = draw_pair(clips, effect, 0, generator)
            low, high = estimates.paired_difference(a, b, clusters)["ci95"]
            p_values = [
                estimates.sign_flip(a, b, clusters, 500, 7)["p_value"], estimates.mcnemar(a, b)["mcnemar_p_value"]
            ]  # fmt: skip
            rows.append([p_values[0] <= 0.05, p_values[1] <= 0.05, low <= 0 <= high])
        percents = 100 * np.mean(rows, axis=0)
        print(f"{clips:>6}{effect:>8}{percents[0]:>15.1f}{percents[1]:>12.1f}{percents[2]:>13.1f}")
        found[clips, effect] = percents
    flips, mcnemar, held = (np.array([percents[place] for percents in found.values()]) for place in range(3))
    return {
        "sign_flip_level_most": float(flips.max()),
        "mcnemar_level_most": float(mcnemar.max()),
        "difference_coverage_least": float(held.min()),
    }


def promotions(trials: int) -> dict[str, float]:
    """Percent of trials in which a challenger becomes champion, by clips and by what it loses."""
    chosen, found = params.load(), {}
    evaluate = chosen.override("evaluate", {"bootstrap_samples": 20}).evaluate
    print(f"{'clips':>6}{'loss':>8}{'champion, %':>13}")
    for clips, loss in ((2, 0.05), (90, 0.05), (90, 0.0), (90, -0.05)):
        generator, earned = np.random.default_rng(2), []
        for _ in range(trials):
            tables = [table_of(right, clips).assign(film="f") for right in draw_pair(clips, 0.1, loss, generator)]
            earned.append(promotion.judge(tables[0], tables[1], "1", chosen.register, evaluate).has_earned)
        found[f"champion_{clips}_clips_loss_{100 * loss:g}"] = 100 * float(np.mean(earned))
        print(f"{clips:>6}{loss:>8}{100 * np.mean(earned):>13.1f}")
    return found


def table_of(right: np.ndarray, clips: int) -> pd.DataFrame:
    """Predictions with these right and wrong answers, whatever is read."""
    table = make_predictions(len(right), 1, 0)
    wrong = np.where(table["gold"] == "A", "B", "A")
    letters = np.where(right, table["gold"], wrong)
    return table.assign(clip_id=clip_of(clips), **dict.fromkeys(metrics.SCORERS, letters))


def machine() -> dict[str, str | int | None]:
    return {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--clips", type=int, default=3)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--trials", type=int, default=1000, help="of each simulation; of promotions a fifth")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    seconds = sharing(chosen.clips, chosen.rounds)
    figures = {
        "rotations_over_plain": seconds["rotations"] / seconds["plain"],
        "separate_over_rotations": seconds["separate"] / seconds["rotations"],
        **tokens_read(),
        **statistics_and_report(5000, 2000),
        **coverage(chosen.trials),
        **level(chosen.trials),
        **promotions(max(1, chosen.trials // 5)),
    }
    rows = {f"{name}, CPU s a clip": value for name, value in seconds.items()} | figures
    for name, value in rows.items():
        print(f"{name:<34}{value:>10.3f}")
    figures = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"benchmark": "evaluation", "machine": machine(), "figures": figures}))


if __name__ == "__main__":
    main()
