"""Train the tiny base: text alone, reading and looking apart, then both."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import VideoLlavaForConditionalGeneration
from transformers.modeling_layers import GradientCheckpointingLayer

from cinetune.frames.sampling import FrameSettings
from cinetune.model.base import answer_logits, check_frame_size, load_base
from cinetune.model.encoder import Encoder, encoder_for
from cinetune.model.packing import model_inputs, normalise
from cinetune.params import ModelParams, PretrainParams
from cinetune.pretraining.architecture import MAX_POSITIONS, card, make_model, make_tokenizer, save
from cinetune.pretraining.dataset import Exercises, look
from cinetune.pretraining.examination import HELD_OUT_CLIPS, examine

WARMUP_STEPS = 100
REPORT_EVERY, EXAMINE_EVERY = 50, 5000
Report = Callable[[int, dict[str, float]], None]


def pretrain(params: PretrainParams, settings: FrameSettings, device: str, report: Report) -> dict[str, float]:
    """Train the base, write it to `params.out` in Hugging Face's layout and return its held-out metrics.

    First it learns to find its way in lists, then it reads, then it reads and looks, apart, then it does both at once.
    `params.start` names a base to continue from. What has been learned is saved every now and then.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    model, encoder = _beginning(params, settings, device)
    workers = max(1, (os.cpu_count() or 2) - 1)
    total = params.films * params.clips_per_film
    render = partial(look, seed=params.seed, clips_per_film=params.clips_per_film, settings=settings)
    steps = params.drill_steps + params.text_steps + params.apart_steps + params.steps
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=params.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate_factor(step, steps, params.decay_fraction)
    )
    loader = DataLoader(
        Exercises(params, encoder, steps),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8,
        multiprocessing_context="fork",
    )
    model.train()
    frames: torch.Tensor | None = None
    # Workers are forked, for one that had to import everything would cost ten seconds; none touches the GPU. Those
    # of the loader come first, while this process has no threads yet.
    batches = iter(loader)
    with get_context("fork").Pool(workers) as pool:
        # The films are drawn while the model learns to read.
        drawn = pool.map_async(render, range(total + HELD_OUT_CLIPS), chunksize=64)
        for step, (clips, rows) in enumerate(batches):
            if clips and frames is None:
                frames = torch.from_numpy(np.stack(drawn.get())).to(device)
            loss = _loss(model, rows, frames[clips] if frames is not None and clips else None, device)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            if step % REPORT_EVERY == 0 or step == steps - 1:
                report(step, {"loss": loss.item(), "learning_rate": schedule.get_last_lr()[0]})
            if step and step % EXAMINE_EVERY == 0:
                save(model, encoder.tokenizer, params.out)
                if frames is not None:
                    report(step, examine(model, encoder, params, frames[total:], total))
        unseen = torch.from_numpy(np.stack(drawn.get()[total:])).to(device)
    metrics = examine(model, encoder, params, unseen, total)
    report(steps, metrics)
    save(model, encoder.tokenizer, params.out)
    described = json.dumps(card(metrics), indent=2) + "\n"
    (Path(params.out) / "pretraining.json").write_text(described, encoding="utf-8")
    return metrics


def _beginning(
    params: PretrainParams, settings: FrameSettings, device: str
) -> tuple[VideoLlavaForConditionalGeneration, Encoder]:
    """The model that is trained, new or that of `params.start`."""
    torch.manual_seed(params.seed)
    if params.start:
        start = ModelParams(params.start, revision="", quantization="none", dtype="float32")
        model, tokenizer = load_base(start, device)
        model.requires_grad_(True)
        check_frame_size(model.config, settings.size)
    else:
        tokenizer = make_tokenizer(params.vocab_size, params.seed)
        model = make_model(params, settings.size, tokenizer).to(device)
    encoder = encoder_for(model.config, tokenizer, settings.num_frames, MAX_POSITIONS)
    encoder.letters()
    if device.startswith("cuda"):
        # Layer by layer, so that one small compilation serves all; CUDA graphs, for so small a model is held up by
        # the launching of its kernels.
        for layer in model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.compile(dynamic=False, mode="reduce-overhead")
    return model, encoder


def _loss(
    model: VideoLlavaForConditionalGeneration,
    rows: dict[str, torch.Tensor],
    shown: torch.Tensor | None,
    device: str,
) -> torch.Tensor:
    """Cross-entropy of a batch; shown: frames uint8 [clips, num_frames, size, size, 3], on the device."""
    is_gpu = device.startswith("cuda")
    batch = model_inputs(rows, torch.bfloat16 if is_gpu else torch.float32, device)
    if shown is not None:
        batch["pixel_values_videos"] = normalise(shown)
    with torch.autocast("cuda", torch.bfloat16, enabled=is_gpu):
        logits = answer_logits(model, batch)
    # Every token counts the same, so that descriptions, where there is most to learn, have their full say.
    return torch.nn.functional.cross_entropy(logits.float(), batch["targets"])


def learning_rate_factor(step: int, steps: int, decay_fraction: float) -> float:
    """Warm-up, then full rate, then a straight fall to zero: skills appear late and suddenly, under the full rate."""
    decay_steps = max(1.0, decay_fraction * steps)
    return min((step + 1) / WARMUP_STEPS, 1.0, (steps - step) / decay_steps)
