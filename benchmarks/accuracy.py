"""What speed costs: accuracy on the test films after trainings that differ in one thing only, for several seeds.

packing         in packs, and each question on its own behind its own prefix; the same questions for the same epochs, as
                many an optimiser step, none of them a second time in words, for those are counted by pack
quantization    the base in full precision, in NF4 and in float8, trained and scored; everything else as in params.yaml

Takes the base model, the questions and the frames of params.yaml; what has been trained is kept in --folder and not
trained again. On two CPU cores a training in packs takes minutes, one without sharing about half an hour. Run it from
the project's root with `python benchmarks/accuracy.py [packing] [quantization]` after `make demo`; the last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# It trains to compare, not to keep: nothing goes to MLflow.
os.environ["CINETUNE_UNTRACKED"] = "1"

from cinetune import params
from cinetune.stages import evaluate, train
from evaluation import machine

QUESTIONS_A_STEP = 32
Changes = Mapping[str, Mapping[str, Any]]


def packed_in(size: int) -> Changes:
    whole = {"questions_per_pack": size, "clips_per_step": QUESTIONS_A_STEP // size}
    return {"train": {**whole, "open_questions_per_pack": 0, "validations_per_epoch": 1}}


# The first way of each comparison is what the others are held against.
COMPARISONS: dict[str, dict[str, Changes]] = {
    "packing": {"packed": packed_in(16), "separate": packed_in(1)},
    "quantization": {name: {"model": {"quantization": name}} for name in ("none", "nf4", "fp8")},
}


def accuracy(way: str, changes: Changes, seed: int, epochs: float, folder: Path) -> float:
    """Share of test questions whose most probable letter is right, of one training."""
    kept = folder / f"{way}-{seed}-{epochs:g}.json"
    if not kept.is_file():
        chosen = params.load().override("train", {"seed": seed, "epochs": epochs})
        for section, values in changes.items():
            chosen = chosen.override(section, values)
        adapter = train.run(chosen)
        evaluation = evaluate.run(chosen.override("evaluate", {"model": str(adapter), "max_new_tokens": 1}))
        shutil.copyfile(evaluation / "metrics.json", kept)
        shutil.rmtree(adapter.parent)
        shutil.rmtree(evaluation.parents[1])
    return json.loads(kept.read_text(encoding="utf-8"))["scorers"]["logit"]["overall"]["accuracy"]


def compare(ways: Mapping[str, Changes], seeds: list[int], epochs: float, folder: Path) -> dict[str, float]:
    """Prints a row a way; mean accuracies, and what each way after the first has more than it."""
    print(f"{'':<10}" + "".join(f"{f'seed {seed}':>9}" for seed in seeds) + f"{'mean':>9}{'sd':>9}")
    figures: dict[str, float] = {}
    for way, changes in ways.items():
        found = [accuracy(way, changes, seed, epochs, folder) for seed in seeds]
        figures[way] = statistics.mean(found)
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        print(f"{way:<10}" + "".join(f"{value:>9.1%}" for value in [*found, figures[way], spread]), flush=True)
    first, *others = ways
    return figures | {f"{way}_minus_{first}": figures[way] - figures[first] for way in others}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("comparisons", nargs="*", metavar="comparison", help=f"of {', '.join(COMPARISONS)}; all")
    every = [way for ways in COMPARISONS.values() for way in ways]
    arguments.add_argument("--ways", nargs="+", choices=every, default=every, help="of the comparisons; all")
    arguments.add_argument("--seeds", nargs="+", type=int, default=[7, 8, 9])
    arguments.add_argument("--epochs", type=float, default=params.load().train.epochs)
    arguments.add_argument("--folder", type=Path, default=Path("outputs/accuracy"))
    chosen = arguments.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, float] = {}
    for name in chosen.comparisons or COMPARISONS:
        ways = COMPARISONS.get(name) or arguments.error(f"comparison {name!r} is not one of {', '.join(COMPARISONS)}.")
        ways = {way: changes for way, changes in ways.items() if way in chosen.ways}
        if ways:
            figures |= compare(ways, chosen.seeds, chosen.epochs, chosen.folder)
    rounded = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"benchmark": "accuracy", "machine": machine(), "figures": rounded}))


if __name__ == "__main__":
    main()
