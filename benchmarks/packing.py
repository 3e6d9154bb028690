"""What packing does to a model: accuracy on the test films after trainings that differ in nothing else.

For each seed the same questions are trained for the same epochs, as many questions an optimiser step: in packs, and
each question on its own behind its own prefix. No question is asked a second time in words, for those are counted by
pack. Takes the base model, the questions and the frames of params.yaml; what has been trained is kept in --folder and
not trained again. On two CPU cores a packed training takes minutes, one without sharing about half an hour. Run it from
the project's root with `python benchmarks/packing.py` after `make demo`; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
from pathlib import Path

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# It trains to compare, not to keep: nothing goes to MLflow.
os.environ["CINETUNE_UNTRACKED"] = "1"

from evaluation import machine

from cinetune import params
from cinetune.stages import evaluate, train

QUESTIONS_A_STEP = 32
WAYS = {"packed": 16, "separate": 1}


def accuracy(way: str, seed: int, epochs: float, folder: Path) -> float:
    """Share of test questions whose most probable letter is right, of one training."""
    kept = folder / f"{way}-{seed}-{epochs:g}.json"
    if not kept.is_file():
        size = WAYS[way]
        chosen = params.load().override(
            "train",
            {
                "seed": seed,
                "epochs": epochs,
                "questions_per_pack": size,
                "clips_per_step": QUESTIONS_A_STEP // size,
                "open_questions_per_pack": 0,
                "validations_per_epoch": 1,
            },
        )
        adapter = train.run(chosen)
        evaluation = evaluate.run(chosen.override("evaluate", {"model": str(adapter), "max_new_tokens": 1}))
        shutil.copyfile(evaluation / "metrics.json", kept)
        shutil.rmtree(adapter.parent)
        shutil.rmtree(evaluation.parents[1])
    return json.loads(kept.read_text(encoding="utf-8"))["scorers"]["logit"]["overall"]["accuracy"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    arguments.add_argument("--seeds", nargs="+", type=int, default=[7, 8, 9])
    arguments.add_argument("--epochs", type=float, default=params.load().train.epochs)
    arguments.add_argument("--folder", type=Path, default=Path("outputs/packing"))
    chosen = arguments.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    print(f"{'':<10}" + "".join(f"{f'seed {seed}':>9}" for seed in chosen.seeds) + f"{'mean':>9}{'sd':>9}")
    for way in chosen.ways:
        found = [accuracy(way, seed, chosen.epochs, chosen.folder) for seed in chosen.seeds]
        figures[way] = statistics.mean(found)
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        print(f"{way:<10}" + "".join(f"{value:>9.1%}" for value in [*found, figures[way], spread]), flush=True)
    if len(figures) == len(WAYS):
        figures["packed_minus_separate"] = figures["packed"] - figures["separate"]
    figures = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"benchmark": "packing", "machine": machine(), "figures": figures}))


if __name__ == "__main__":
    main()
