"""Questions per second of one training in one process and in several, with the same packs in every optimiser step.

    python benchmarks/scaling.py --tiny     # the tiny model on the CPU, one processor a process
    python benchmarks/scaling.py            # 7B with random weights, one GPU of 80 GB a process
    python benchmarks/scaling.py --spread --processes 1 8

Each number of processes is a training of its own under torchrun: clips of CinePile-mini at the base's frame size, with
prefixes as long and questions as many as the real ones have, 16 a step (so that eight processes have two each; the tiny
one 8). They are equally long, or with --spread as long as those of films may be: 12 to 32 questions and 400 to 1,200
tokens of instruction and subtitles, drawn uniformly, from little talk to what a recipe reads at most; the tiny one's
subtitles stay as they are. The steps that compile do not count.

of linear    of as many times one process's speed
of lengths   the same, of what the lengths of these packs alone allow with each step shared out by length (at random)
waiting      of a step, the mean share in which a process has its gradient and waits for the others'
host         of a step, the mean share between two steps: the next packs are fetched and counted, the optimiser's work
             and logging are done; on a GPU what of that the GPU does not overlap

The last loss is told because it must not depend on how many there are. Needs torch, transformers and peft alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rehearsal import child_environment, frames_of, make_clips, settings
from throughput import make_base

from cinetune.model import planning
from cinetune.model.encoder import encoder_of
from cinetune.model.sizes import size_of
from cinetune.runtime import cost, distributed
from cinetune.runtime.sharing import in_turn, share_of_linear
from cinetune.task.description import CINEPILE
from cinetune.training import trainer
from cinetune.training.callbacks import Reporter

# Of the losses of one training, however many share it: bfloat16 adds up in another order.
NEAR = 0.02
# Speed is reported every so many steps, and the second report counts.
LOG_STEPS = 3
# Of the shares that lengths alone allow: in so many shuffled epochs.
EPOCHS = 200


class Watch(Reporter):
    """Times where a process is in each optimiser step, on its own device's clock."""

    def __init__(self, report: Any) -> None:
        super().__init__(report)
        self.steps: list[dict[str, Any]] = []
        WATCHES.append(self)

    def on_train_begin(self, *args: Any, model: torch.nn.Module, **kwargs: Any) -> None:
        # The first layer's gradients are the last to come.
        for name, weight in model.named_parameters():
            if weight.requires_grad and ".layers.0." in name:
                weight.register_post_accumulate_grad_hook(lambda weight: self._note("gradient"))

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.steps.append({})
        self._note("begin")

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        # Clipping came before: it is short.
        self._note("all")

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.steps[-1]["validated"] = True

    def _note(self, name: str) -> None:
        if torch.cuda.is_available():
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.steps[-1][name] = event
        else:
            self.steps[-1][name] = time.perf_counter()

    def shares(self, last: int) -> dict[str, float]:
        """Of the last steps that another one follows at once: mean shares of waiting and of what is between two."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found: dict[str, list[float]] = {"waiting": [], "host": []}
        for step, following in list(pairwise(self.steps))[-last:]:
            if "validated" in step:
                continue
            whole = _between(step["begin"], following["begin"])
            found["waiting"].append(_between(step["gradient"], step["all"]) / whole)
            found["host"].append(_between(step["all"], following["begin"]) / whole)
        return {name: statistics.mean(shares) for name, shares in found.items()}


WATCHES: list[Watch] = []


def _between(one: Any, other: Any) -> float:
    return float(other - one) if isinstance(one, float) else float(one.elapsed_time(other))


def train(folder: Path, is_tiny: bool, is_spread: bool) -> None:
    """One process's part of a training; the first writes what it saw."""
    clips_per_step = 8 if is_tiny else 16
    # Two steps an epoch.
    size = {"max_steps": 2 * LOG_STEPS, "epochs": float(LOG_STEPS), "clips_per_step": clips_per_step}
    params = settings(folder, is_tiny).override("train", size | {"validations_per_epoch": 1})
    seen: dict[str, float] = {}
    with distributed.joined():
        base, tokenizer = make_base(is_tiny, distributed.device())
        encoder = encoder_of(params, base.config, tokenizer, CINEPILE)
        clips = make_clips(params, encoder, is_tiny, 2 * clips_per_step + 1, is_spread)
        given = clips[:-1], clips[-1:]
        with mock.patch.object(trainer, "Reporter", Watch), mock.patch.object(trainer, "LOG_STEPS", LOG_STEPS):
            trainer.train(
                base, encoder, *given, frames_of(params), params.train, folder / "checkpoints",
                lambda step, figures: seen.update(figures),
            )  # fmt: skip
        all_shares = distributed.gather([WATCHES[-1].shares(LOG_STEPS)])
        if distributed.is_first():
            limits = params.train.questions_per_pack, params.train.tokens_per_pack, params.train.open_questions_per_pack
            plan = planning.plan(given[0], encoder, *limits)
            lengths = [cost.pack_flops(pack, size_of(base.config, params.train.lora_rank)) for pack in plan.packs]
            told = {name: statistics.mean(shares[name] for shares in all_shares) for name in ("waiting", "host")}
            told |= balances(lengths, clips_per_step, distributed.count())
            tokens = [pack.tokens for pack in plan.packs]
            told |= {"min_tokens": min(tokens), "max_tokens": max(tokens)}
            (folder / "seen.json").write_text(json.dumps(seen | told), encoding="utf-8")


def balances(costs: Sequence[float], packs_per_step: int, count: int) -> dict[str, float]:
    """What lengths alone allow of linear growth."""
    return {
        "by_length": share_of_linear(costs, packs_per_step, count, epochs=EPOCHS),
        "at_random": share_of_linear(costs, packs_per_step, count, in_turn, epochs=EPOCHS),
    }


def timed(number: int, is_tiny: bool, is_spread: bool, scratch: Path | None) -> dict[str, Any]:
    """What a training over a number of processes reported last."""
    with tempfile.TemporaryDirectory(prefix="scaling-", dir=scratch) as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
        command += [__file__, "--step", folder, *["--tiny"] * is_tiny, *["--spread"] * is_spread]
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
    parser.add_argument("--spread", action="store_true", help="packs of very different lengths")
    parser.add_argument("--processes", nargs="+", type=int, help="1 and the number of GPUs, or of processors")
    parser.add_argument("--folder", type=Path, help="where to write; the system's temporary folder by default")
    parser.add_argument("--step", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        train(options.step, options.tiny, options.spread)
        return
    there = (os.cpu_count() or 1) if options.tiny else torch.cuda.device_count()
    if there < 2:
        parser.error("it takes two GPUs, or two processors and --tiny.")
    wanted = options.processes or (1, min(2, there))
    rows = {number: timed(number, options.tiny, options.spread, options.folder) for number in wanted}
    tell(rows, options.tiny)


def tell(rows: dict[int, dict[str, Any]], is_tiny: bool) -> None:
    fewest = min(rows)
    first = rows[fewest]
    print(f"packs of {first['min_tokens']} to {first['max_tokens']} tokens\n")
    names = ("questions/s", "ratio", "of linear", "of lengths", "(random)", "waiting", "host", "MFU", "peak GB")
    print(f"{'processes':<10}" + "".join(f"{name:>12}" for name in (*names, "last loss")))
    figures = {}
    for number, seen in sorted(rows.items()):
        ratio = seen["train/questions_per_s"] / first["train/questions_per_s"]
        shares = (ratio * fewest / number, *(seen[name] for name in ("by_length", "at_random", "waiting", "host")))
        print(
            f"{number:<10}{seen['train/questions_per_s']:>12.2f}{ratio:>12.2f}"
            + "".join(f"{share:>12.1%}" for share in (*shares, seen["train/mfu"]))
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
