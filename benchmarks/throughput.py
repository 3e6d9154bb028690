"""Questions per second in training and scoring: the usual recipe, ours without sharing, and ours; in one process.

    python benchmarks/throughput.py --tiny     # the tiny model on the CPU, under a minute
    python benchmarks/throughput.py            # 7B with random weights, on one GPU

usual     each question with its own copy of the clip, batch 1, loss on every token, activation checkpointing;
          scored by generating one token (on a GPU: NF4, as the notebooks for this model do)
separate  our loss and settings, each question with its own copy of the clip
packed    ours: the clip once, all its questions behind it

Needs torch, transformers and peft alone (with bitsandbytes for NF4). Speed does not depend on what weights say.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import VideoLlavaConfig, VideoLlavaForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from cinetune import params as params_module
from cinetune import pretraining
from cinetune.attention import IMPLEMENTATION
from cinetune.mini import ask, talk
from cinetune.model import answer_logits, attach_lora, encoder_for
from cinetune.packing import Encoder, collate, training_pack, weights
from cinetune.questions import ClipQuestions, Question
from cinetune.scoring import Asked, reply

PARAMS = params_module.load(Path(__file__).resolve().parents[1] / "params.yaml")
# Lengths of the real thing in tokens: subtitles with instruction, and a question with its options.
REAL_PREFIX_TOKENS, REAL_QUESTION_TOKENS = 620, 160
WAYS = ("usual", "separate", "packed")


@dataclass(frozen=True)
class Bench:
    """A base, how to encode for it, one clip with its questions, and its frames."""

    model: VideoLlavaForConditionalGeneration
    encoder: Encoder
    clip: ClipQuestions
    frames: np.ndarray
    device: str


def make_bench(is_tiny: bool, count: int) -> Bench:
    torch.manual_seed(0)
    device = "cpu" if is_tiny else "cuda"
    tokenizer = pretraining.make_tokenizer(PARAMS.pretrain.vocab_size, seed=1)
    if is_tiny:
        model = pretraining.make_model(PARAMS.pretrain, PARAMS.frames.size, tokenizer)
    else:
        config = VideoLlavaConfig(video_token_index=tokenizer.convert_tokens_to_ids("<video>"))
        with torch.device(device):
            torch.set_default_dtype(torch.bfloat16)
            model = VideoLlavaForConditionalGeneration(config)
            torch.set_default_dtype(torch.float32)
    model.set_attn_implementation(IMPLEMENTATION)
    model.requires_grad_(False)
    encoder = encoder_for(model.config, tokenizer, PARAMS.frames.num_frames, max_subtitle_tokens=4096)
    size = model.config.vision_config.image_size
    frames = np.random.default_rng(0).integers(0, 256, (PARAMS.frames.num_frames, size, size, 3), dtype=np.uint8)
    return Bench(model, encoder, make_clip(encoder, count, is_tiny), frames, device)


def make_clip(encoder: Encoder, count: int, is_tiny: bool) -> ClipQuestions:
    """A clip of CinePile-mini with `count` questions; for the large model its texts are repeated to real lengths."""
    rng = np.random.default_rng(0)
    story = pretraining.clip_of(1, 0, 4)
    subtitles = talk.subtitles(story)
    pool = ask.candidates(story, rng)
    questions = []
    for number in range(count):
        item = pool[number % len(pool)]
        choices = item.choices(rng, 0)
        spare = REAL_QUESTION_TOKENS - len(encoder.suffix(item.text, choices))
        text = item.text if is_tiny else _lengthened(encoder, item.text, spare)
        questions.append(Question(f"q-{number:03d}", text, choices, 0, "Temporal", "False", "1"))
    if not is_tiny:
        text_tokens = len(encoder.prefix(subtitles)[0]) - encoder.num_video_tokens
        subtitles = _lengthened(encoder, subtitles, REAL_PREFIX_TOKENS - text_tokens)
    return ClipQuestions("clip", "Film (2000)", subtitles, tuple(questions))


def _lengthened(encoder: Encoder, text: str, tokens: int) -> str:
    filler = encoder.tokenizer(" ".join([text] * (tokens // 2 + 1)), add_special_tokens=False).input_ids
    return f"{text} {encoder.tokenizer.decode(filler[:tokens])}"


def seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    """Median seconds of a run, after one that is not counted."""
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def train_step(bench: Bench, model: torch.nn.Module, groups: Sequence[Sequence[Question]], every_token: bool) -> None:
    """One optimiser step's gradients over the groups, each of which is one sequence."""
    dtype = bench.model.get_input_embeddings().weight.dtype
    for questions in groups:
        item = training_pack(bench.encoder, bench.clip, questions, bench.frames)
        batch = collate([item], 0, dtype, bench.device)
        if every_token:
            inputs = {name: batch[name] for name in ("input_ids", "pixel_values_videos")}
            loss = model(**inputs, labels=batch["input_ids"], use_cache=False).loss
        else:
            losses = torch.nn.functional.cross_entropy(
                answer_logits(model, batch).float(), batch["targets"], reduction="none"
            )
            loss = (losses * weights([item]).to(bench.device)).sum()
        loss.backward()
    model.zero_grad(set_to_none=True)


def time_training(bench: Bench, way: str, repeats: int) -> float:
    """Questions per second."""
    model = attach_lora(bench.model, dataclasses.replace(PARAMS.train, lora_dropout=0.0))
    model.train()
    is_usual = way == "usual"
    if is_usual:
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()
    questions = bench.clip.questions
    groups = [questions] if way == "packed" else [[question] for question in questions[:4]]
    taken = seconds(lambda: train_step(bench, model, groups, is_usual), bench.device, repeats)
    if is_usual:
        model.activation_checkpointing_disable()
    model.unload()
    gc.collect()
    return sum(map(len, groups)) / taken


def time_scoring(bench: Bench, way: str, repeats: int) -> float:
    """Questions per second."""
    model = bench.model.eval()
    asked = [Asked(question.text, question.choices) for question in bench.clip.questions]

    def generate() -> None:
        for item in asked[:4]:
            ids = bench.encoder.prefix(bench.clip.subtitles)[0] + bench.encoder.suffix(item.question, item.choices)
            pixels = collate(
                [training_pack(bench.encoder, bench.clip, bench.clip.questions[:1], bench.frames)],
                0,
                model.get_input_embeddings().weight.dtype,
                bench.device,
            )["pixel_values_videos"]
            tokens = torch.tensor([ids], device=bench.device)
            model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                pixel_values_videos=pixels,
                max_new_tokens=1,
                do_sample=False,
                pad_token_id=0,
            )

    def score(groups: Sequence[Sequence[Asked]]) -> None:
        for group in groups:
            reply(model, bench.encoder, bench.clip.subtitles, bench.frames, group, max_new_tokens=0)

    if way == "usual":
        return 4 / seconds(generate, bench.device, repeats)
    groups = [asked] if way == "packed" else [[item] for item in asked[:4]]
    return sum(map(len, groups)) / seconds(lambda: score(groups), bench.device, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="the tiny model on the CPU")
    parser.add_argument("--questions", type=int, help="questions a clip; 32, or 16 with --tiny")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs, of which the median counts")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        parser.error("the 7B model needs a GPU: add --tiny to time the tiny one on this machine.")
    bench = make_bench(options.tiny, options.questions or (16 if options.tiny else 32))
    rows = {}
    for way in WAYS:
        rows[way] = {
            "train": time_training(bench, way, options.repeats),
            "score": time_scoring(bench, way, options.repeats),
        }
    prefix, question = bench.encoder.prefix(bench.clip.subtitles)[0], bench.clip.questions[0]
    print(
        f"{len(bench.clip.questions)} questions of about {len(bench.encoder.suffix(question.text, question.choices))} "
        f"tokens behind a prefix of {len(prefix)}; questions per second, median of {options.repeats}:\n"
    )
    print(f"{'way':<10}{'train':>9}{'score':>9}")
    for way, row in rows.items():
        print(f"{way:<10}{row['train']:>9.2f}{row['score']:>9.2f}")
    figures = {
        "train_ratio": rows["packed"]["train"] / rows["usual"]["train"],
        "score_ratio": rows["packed"]["score"] / rows["usual"]["score"],
        "pack_ratio": rows["packed"]["train"] / rows["separate"]["train"],
        "pack_score_ratio": rows["packed"]["score"] / rows["separate"]["score"],
    }
    machine = torch.cuda.get_device_name() if bench.device == "cuda" else f"{platform.machine()} CPU"
    if bench.device == "cpu":
        machine += f", {torch.get_num_threads()} threads"
    rounded = {name: round(value, 2) for name, value in figures.items()}
    print(json.dumps({"benchmark": "throughput", "machine": machine, "figures": rounded}))


if __name__ == "__main__":
    main()
