"""Everything a fine-tuning of the 7B model does, at full size and without a network, on weights that are random.

    python benchmarks/rehearsal.py --tiny             # the tiny model on the CPU
    python benchmarks/rehearsal.py --folder <scratch> # 7B on one GPU; 15 GB of disk

Each step is a process of its own, as for a user: write the base in Hugging Face's layout; train on packs of clips of
CinePile-mini, at the base's frame size and with prefixes of the real length; be killed in the middle; go on; score
with the saved adapter; score again with a copy of it elsewhere, which must give the same; and load and train with NF4
(on a GPU). Prints seconds and memory of each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from throughput import REAL_TEXT_TOKENS, lengthened, make_base

from cinetune import params as params_module
from cinetune.data.mini import ask, talk
from cinetune.inference import scoring
from cinetune.model.base import default_device, load_base
from cinetune.model.encoder import Encoder, encoder_of
from cinetune.model.lora import load_adapter, save_adapter
from cinetune.params import Params
from cinetune.pretraining import dataset
from cinetune.runtime import checkpoints, memory
from cinetune.task.description import CINEPILE
from cinetune.task.questions import ClipQuestions, Question
from cinetune.training import trainer

ROOT = Path(__file__).resolve().parents[1]
TRAIN_CLIPS, VALIDATION_CLIPS, STEPS = 10, 1, 20
# Of instruction and subtitles, where these vary as those of films do: from little talk to what a recipe reads at most.
FEWEST_TEXT_TOKENS, MOST_TEXT_TOKENS = 400, 1200
MADE_BY = {"rehearsal": "1"}
FIGURES = "figures.json"


def settings(folder: Path, is_tiny: bool, quantization: str = "none") -> Params:
    params = params_module.load(ROOT / "params.yaml")
    base = {"base": str(folder / "base"), "quantization": quantization}
    if is_tiny:
        train = {"max_steps": 6, "clips_per_step": 1, "questions_per_pack": 4, "validations_per_epoch": 3}
        return params.override("model", base).override("train", train)
    train = {"max_steps": STEPS, "clips_per_step": 1, "questions_per_pack": 32, "validations_per_epoch": 1}
    params = params.override("model", base | {"dtype": "bfloat16"}).override("frames", {"size": 224})
    return params.override("prompt", {"max_subtitle_tokens": 1200}).override("train", train | {"learning_rate": 1e-4})


def write(folder: Path, is_tiny: bool) -> None:
    model, tokenizer = make_base(is_tiny, default_device())
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")


def make_clips(
    params: Params, encoder: Encoder, is_tiny: bool, how_many: int, is_spread: bool = False
) -> list[ClipQuestions]:
    """Each with `questions_per_pack` questions; for the large model their subtitles are repeated to real lengths.

    Where they are spread, a clip has 3/8 to all of these questions and FEWEST_ to MOST_TEXT_TOKENS, drawn uniformly.
    """
    clips = []
    for number in range(how_many):
        rng = np.random.default_rng(number)
        clip = dataset.clip_of(1, number, 4)
        pool = ask.candidates(clip, rng)
        count, text_tokens = params.train.questions_per_pack, REAL_TEXT_TOKENS
        if is_spread:
            drawn = np.random.default_rng((number, 1))
            count = int(drawn.integers(3 * count // 8, count + 1))
            text_tokens = int(drawn.integers(FEWEST_TEXT_TOKENS, MOST_TEXT_TOKENS + 1))
        questions = tuple(
            Question(f"q-{number}-{i}", pool[i % len(pool)].text, pool[i % len(pool)].choices(rng, i % 5), i % 5,
                     "Temporal", "False", "1")
            for i in range(count)
        )  # fmt: skip
        subtitles = talk.subtitles(clip)
        if not is_tiny:
            wanted = text_tokens + encoder.num_video_tokens
            subtitles = lengthened(subtitles, wanted, lambda text: encoder.prefix(text)[0])
        clips.append(ClipQuestions(f"clip-{number}", f"Film {number} (2000)", subtitles, questions))
    return clips


def frames_of(params: Params) -> Callable[[str], np.ndarray]:
    return lambda clip_id: dataset.look(int(clip_id.split("-")[1]), 1, 4, params.frames)


def train(folder: Path, is_tiny: bool, quantization: str = "none") -> None:
    params = settings(folder, is_tiny, quantization)
    work = folder / f"checkpoints-{quantization}"
    started = time.monotonic()
    base, tokenizer = load_base(params.model, default_device())
    loaded = time.monotonic() - started
    encoder = encoder_of(params, base.config, tokenizer, CINEPILE)
    clips = make_clips(params, encoder, is_tiny, TRAIN_CLIPS + VALIDATION_CLIPS)
    checkpoints.begin(work, "rehearsal", MADE_BY)
    checkpoint = checkpoints.last(work)
    losses: dict[int, float] = {}

    def report(step: int, figures: Any) -> None:
        if "train/loss" in figures:
            losses[step] = figures["train/loss"]
            print(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)

    given = clips[:TRAIN_CLIPS], clips[TRAIN_CLIPS:]
    result = trainer.train(base, encoder, *given, frames_of(params), params.train, work, report, checkpoint)
    save_adapter(result.model, folder / f"adapter-{quantization}")
    begun_at = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    tell(folder, load_s=loaded, peak_gb=memory.peak_gb(), begun_at=begun_at, steps=result.steps, losses=losses)


def score(folder: Path, is_tiny: bool, adapter: str) -> None:
    params = settings(folder, is_tiny)
    base, tokenizer = load_base(params.model, default_device())
    encoder = encoder_of(params, base.config, tokenizer, CINEPILE)
    model = load_adapter(base, folder / adapter)
    clip = make_clips(params, encoder, is_tiny, 1)[0]
    asked = [scoring.QuestionPrompt(question.text, question.choices) for question in clip.questions]
    started = time.monotonic()
    replies = scoring.reply(model, encoder, clip.subtitles, frames_of(params)(clip.clip_id), asked, max_new_tokens=8)
    shares = [reply.probabilities for reply in replies]
    tell(folder, score_s=time.monotonic() - started, peak_gb=memory.peak_gb(), probabilities=shares,
         words=[reply.raw for reply in replies])  # fmt: skip


def tell(folder: Path, **figures: Any) -> None:
    (folder / FIGURES).write_text(json.dumps(figures), encoding="utf-8")


def child(folder: Path, is_tiny: bool, *step: str) -> subprocess.Popen[bytes]:
    (folder / FIGURES).unlink(missing_ok=True)
    command = [sys.executable, __file__, "--folder", str(folder), "--step", *step]
    # What a step tells is not part of the table.
    return subprocess.Popen(command + ["--tiny"] * is_tiny, env=child_environment(), stdout=sys.stderr)


def child_environment() -> dict[str, str]:
    """For a process that finds the modules that this one found."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path[1:]])}


def timed(name: str, folder: Path, is_tiny: bool, *step: str) -> dict[str, Any]:
    """Run a step to its end, with a row of the table; its figures."""
    started = time.monotonic()
    code = child(folder, is_tiny, *step).wait()
    if code:
        raise SystemExit(f"rehearsal: {name} ended with {code}.")
    path = folder / FIGURES
    figures = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    tell_row(name, started, figures)
    return figures


def tell_row(name: str, started: float, figures: dict[str, Any]) -> None:
    loading, peak = (f"{figures[key]:.1f}" if key in figures else "" for key in ("load_s", "peak_gb"))
    print(f"{name:<26}{time.monotonic() - started:>9.1f}{loading:>9}{peak:>9}", flush=True)


def killed(folder: Path, is_tiny: bool) -> None:
    """Training, killed as soon as a checkpoint is whole."""
    started = time.monotonic()
    process = child(folder, is_tiny, "train", "none")
    while checkpoints.last(folder / "checkpoints-none") is None:
        if process.poll() is not None:
            raise SystemExit(f"rehearsal: training ended with {process.returncode} before its first checkpoint.")
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    tell_row("train until killed", started, {})


def rehearse(folder: Path, is_tiny: bool) -> dict[str, float]:
    print(f"{'step':<26}{'seconds':>9}{'loading':>9}{'peak GB':>9}", flush=True)
    timed("write the base", folder, is_tiny, "write")
    killed(folder, is_tiny)
    resumed = timed("go on", folder, is_tiny, "train", "none")
    wanted = settings(folder, is_tiny).train.max_steps
    if not 0 < resumed["begun_at"] < resumed["steps"] == wanted:
        raise SystemExit(f"rehearsal: went on at step {resumed['begun_at']} and ended at {resumed['steps']}.")
    shutil.copytree(folder / "adapter-none", folder / "elsewhere")
    scored = [timed(f"score with {name}", folder, is_tiny, "score", name) for name in ("adapter-none", "elsewhere")]
    if any(scored[0][key] != scored[1][key] for key in ("probabilities", "words")):
        raise SystemExit("rehearsal: the adapter scores otherwise elsewhere.")
    if not is_tiny:
        timed("train with NF4", folder, is_tiny, "train", "nf4")
    return {"begun_at": resumed["begun_at"], "steps": resumed["steps"], "scores_equal": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="the tiny model on the CPU")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        parser.error("the 7B model needs a GPU: add --tiny to rehearse with the tiny one on this machine.")
    if options.step:
        name, *rest = options.step
        {"write": write, "train": train, "score": score}[name](options.folder, options.tiny, *rest)
        return
    folder = Path(tempfile.mkdtemp(prefix="rehearsal-", dir=options.folder))
    try:
        figures = rehearse(folder, options.tiny)
    finally:
        shutil.rmtree(folder)
    machine = torch.cuda.get_device_name() if default_device() == "cuda" else "CPU"
    print(json.dumps({"benchmark": "rehearsal", "machine": machine, "figures": figures}))


if __name__ == "__main__":
    main()
