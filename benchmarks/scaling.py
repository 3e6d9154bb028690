"""Questions per second of one training in one process and in several, with the same packs in every optimiser step.

    python benchmarks/scaling.py --tiny     # the tiny model on the CPU, one processor a process
    python benchmarks/scaling.py            # 7B with random weights, one GPU of 80 GB a process

Each number of processes is a training of its own under torchrun: clips of CinePile-mini at the base's frame size, with
prefixes as long and questions as many as the real ones have; the steps that compile do not count. `of linear`: of as
many times one process's speed. The last loss is told because it must not depend on how many there are. Needs torch,
transformers and peft alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rehearsal import child_environment, frames_of, make_clips, settings
from throughput import make_base

from cinetune.model.encoder import encoder_of
from cinetune.runtime import distributed
from cinetune.task.description import CINEPILE
from cinetune.training import trainer

# Of the losses of one training, however many share it: bfloat16 adds up in another order.
NEAR = 0.02


def train(folder: Path, is_tiny: bool) -> None:
    """One process's part of a training; the first writes what it saw."""
    # Ten steps, two an epoch; speed is reported every five, and the second report counts.
    size = {"max_steps": 10, "epochs": 5.0, "clips_per_step": 4 if is_tiny else 8, "validations_per_epoch": 1}
    params = settings(folder, is_tiny).override("train", size)
    seen: dict[str, float] = {}
    with distributed.joined():
        base, tokenizer = make_base(is_tiny, distributed.device())
        encoder = encoder_of(params, base.config, tokenizer, CINEPILE)
        clips = make_clips(params, encoder, is_tiny, 2 * params.train.clips_per_step + 1)
        given = clips[:-1], clips[-1:]
        trainer.train(
            base, encoder, *given, frames_of(params), params.train, folder / "checkpoints",
            lambda step, figures: seen.update(figures),
        )  # fmt: skip
        if distributed.is_first():
            (folder / "seen.json").write_text(json.dumps(seen), encoding="utf-8")


def timed(number: int, is_tiny: bool, scratch: Path | None) -> dict[str, Any]:
    """What a training over a number of processes reported last."""
    with tempfile.TemporaryDirectory(prefix="scaling-", dir=scratch) as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
        command += [__file__, "--step", folder, *["--tiny"] * is_tiny]
        # A processor each, and no GPU.
        environment = child_environment() | ({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} if is_tiny else {})
        # What a training tells is not part of the table.
        code = subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode
        if code:
            raise SystemExit(f"scaling: the training in {number} processes ended with {code}.")
        return dict(json.loads((Path(folder) / "seen.json").read_text(encoding="utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="the tiny model on the CPU")
    parser.add_argument("--processes", nargs="+", type=int, help="1 and the number of GPUs, or of processors")
    parser.add_argument("--folder", type=Path, help="where to write; the system's temporary folder by default")
    parser.add_argument("--step", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        train(options.step, options.tiny)
        return
    there = (os.cpu_count() or 1) if options.tiny else torch.cuda.device_count()
    if there < 2:
        parser.error("it takes two GPUs, or two processors and --tiny.")
    rows = {number: timed(number, options.tiny, options.folder) for number in options.processes or (1, min(2, there))}
    tell(rows, options.tiny)


def tell(rows: dict[int, dict[str, Any]], is_tiny: bool) -> None:
    fewest = min(rows)
    first = rows[fewest]
    names = ("questions/s", "ratio", "of linear", "MFU", "peak GB", "last loss")
    print(f"{'processes':<10}" + "".join(f"{name:>12}" for name in names))
    figures = {}
    for number, seen in sorted(rows.items()):
        ratio = seen["train/questions_per_s"] / first["train/questions_per_s"]
        columns = (ratio * fewest / number, seen["train/mfu"])
        print(
            f"{number:<10}{seen['train/questions_per_s']:>12.2f}{ratio:>12.2f}"
            + "".join(f"{share:>12.1%}" for share in columns)
            + f"{seen['train/peak_memory_gb']:>12.1f}{seen['train/loss']:>12.4f}"
        )
        figures[f"ratio_of_{number}"] = round(ratio, 3)
    for number, seen in rows.items():
        if abs(seen["train/loss"] - first["train/loss"]) > NEAR * first["train/loss"]:
            raise SystemExit(f"scaling: {number} processes end with another loss than {fewest}.")
    machine = f"{platform.machine()} CPU, a processor each" if is_tiny else torch.cuda.get_device_name()
    print(json.dumps({"benchmark": "scaling", "machine": machine, "figures": figures}))


if __name__ == "__main__":
    main()
