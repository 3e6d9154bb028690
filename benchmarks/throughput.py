"""Questions per second in training and scoring: the usual recipe, ours without sharing, and ours; in one process.

    python benchmarks/throughput.py --tiny     # the tiny model on the CPU, in about a minute
    python benchmarks/throughput.py            # 7B with random weights, on one GPU of 80 GB
    python benchmarks/throughput.py --ways packed fp8

usual     each question with its own copy of the clip, batch 1, loss on every token, activation checkpointing;
          scored by generating one token (on a GPU: NF4, as the notebooks for this model do). It waits for its host,
          so that ratios to it differ from host to host
published the best published rate of an unshared LoRA on such a model and one H100, in questions as long as these
separate  our loss and settings, each question with its own copy of the clip
packed    ours: the clip once, all its questions behind it
fp8       the same with frozen products in float8 (on a GPU alone)
FA2       either of them with FlashAttention 2, where version 4 is installed
24 GB     ours with NF4 and as much activation checkpointing as such a card needs; 12 GB likewise (on a GPU alone)

`of limit` is the share of what the frozen products of a pack alone would allow, timed in the same run on random
numbers, one after another; float8 has a limit of its own. On a GPU answers in words are timed too.

Needs torch, transformers and peft alone, and bitsandbytes for NF4. Speed does not depend on what weights say.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import math
import platform
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import VideoLlavaConfig, VideoLlavaForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from cinetune import params as params_module
from cinetune.data.mini import ask, talk
from cinetune.inference import graphs
from cinetune.inference.scoring import QuestionPrompt, answer, choose, read
from cinetune.model import attention
from cinetune.model.attention import IMPLEMENTATION
from cinetune.model.base import LORA_TARGETS, replace_projections
from cinetune.model.encoder import Encoder, encoder_for
from cinetune.model.fast import flash, last_layer
from cinetune.model.float8 import Float8Linear
from cinetune.model.lora import attach_lora
from cinetune.model.packing import collate, training_pack, weights
from cinetune.pretraining import architecture, dataset
from cinetune.runtime import limit
from cinetune.task.questions import ClipQuestions, Question
from cinetune.training import compilation
from cinetune.training.loss import loss_of

PARAMS = params_module.load(Path(__file__).resolve().parents[1] / "params.yaml")
TRAIN = dataclasses.replace(PARAMS.train, lora_dropout=0.0)
# Lengths of the real thing in tokens: instruction with subtitles, and a question with its options.
REAL_TEXT_TOKENS, REAL_QUESTION_TOKENS = 620, 160
# One after another, as in an optimiser step and in a validation, so that the host may be ahead of the GPU.
CLIPS_TRAINED, CLIPS_SCORED = 2, 4
# NeMo Automodel's performance summary: Qwen2.5-7B, LoRA, bfloat16, one H100, tokens a second.
PUBLISHED_TOKENS = 14_110
WAYS = ("separate", "packed", "fp8", "24 GB", "12 GB", "usual")
# Questions that are answered in words together, and tokens of each in two runs, whose difference counts.
ASKED_IN_WORDS, WORD_TOKENS = (1, 16), (2, 34)


@dataclass(frozen=True)
class Bench:
    """A base, how to encode for it, one clip with its questions, and its frames."""

    model: VideoLlavaForConditionalGeneration
    encoder: Encoder
    clip: ClipQuestions
    frames: np.ndarray
    device: str


@dataclass(frozen=True)
class Row:
    """Questions per second, and the most memory that was held in GB (0 on a CPU)."""

    train: float
    score: float
    train_gb: float
    score_gb: float


def make_bench(is_tiny: bool, count: int) -> Bench:
    device = "cpu" if is_tiny else "cuda"
    model, tokenizer = make_base(is_tiny, device)
    encoder = encoder_for(model.config, tokenizer, PARAMS.frames.num_frames, max_subtitle_tokens=4096)
    size = model.config.vision_config.image_size
    frames = np.random.default_rng(0).integers(0, 256, (PARAMS.frames.num_frames, size, size, 3), dtype=np.uint8)
    return Bench(model, encoder, make_clip(encoder, count, is_tiny), frames, device)


def make_base(is_tiny: bool, device: str) -> tuple[VideoLlavaForConditionalGeneration, Any]:
    """A base with its tokenizer, as loading gives them, with random weights that are always the same.

    It has the tiny one's shape, or the 7B's in bfloat16 on a device.
    """
    torch.manual_seed(0)
    tokenizer = architecture.make_tokenizer(PARAMS.pretrain.vocab_size, seed=1)
    if is_tiny:
        model = architecture.make_model(PARAMS.pretrain, PARAMS.frames.size, tokenizer)
    else:
        model = make_7b(tokenizer, device)
    last_layer.narrow(model)
    return model.requires_grad_(False).eval(), tokenizer


def make_7b(tokenizer: Any, device: str) -> VideoLlavaForConditionalGeneration:
    config = VideoLlavaConfig(video_token_index=tokenizer.convert_tokens_to_ids("<video>"))
    # As the real base has.
    config.text_config.max_position_embeddings = 4096
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = VideoLlavaForConditionalGeneration(config)
        torch.set_default_dtype(torch.float32)
    model.set_attn_implementation(IMPLEMENTATION)
    return model


def make_clip(encoder: Encoder, count: int, is_tiny: bool) -> ClipQuestions:
    """A clip of CinePile-mini with `count` questions; for the large model its texts are repeated to real lengths."""
    rng = np.random.default_rng(0)
    story = dataset.clip_of(1, 0, 4)
    subtitles = talk.subtitles(story)
    pool = ask.candidates(story, rng)
    questions = []
    for number in range(count):
        item = pool[number % len(pool)]
        choices = item.choices(rng, 0)
        text = item.text
        if not is_tiny:
            text = lengthened(text, REAL_QUESTION_TOKENS, lambda text, given=choices: encoder.suffix(text, given))
        questions.append(Question(f"q-{number:03d}", text, choices, 0, "Temporal", "False", "1"))
    if not is_tiny:
        wanted = REAL_TEXT_TOKENS + encoder.num_video_tokens
        subtitles = lengthened(subtitles, wanted, lambda text: encoder.prefix(text)[0])
    return ClipQuestions("clip", "Film (2000)", subtitles, tuple(questions))


def lengthened(text: str, tokens: int, encode: Callable[[str], Sequence[int]]) -> str:
    """The text and words of it again, as many as it takes."""
    words = cycle(text.replace("<subtitle>", " ").split())
    while (missing := tokens - len(encode(text))) > 0:
        # No word takes more than eight tokens, so none is added too many.
        text += "".join(f" {next(words)}" for _ in range(max(1, missing // 8)))
    return text


def measured(run: Callable[[], object], device: str, repeats: int) -> tuple[float, float]:
    """Median seconds of a run after two that are not counted, and the most memory held in GB."""
    taken = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats + 2):
        started = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[2:]), torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0


def make_batches(bench: Bench, groups: Sequence[Sequence[Question]]) -> list[dict[str, Any]]:
    """Each group as one sequence; made beforehand, as the Trainer's workers do."""
    packs = [training_pack(bench.encoder, bench.clip, questions, bench.frames) for questions in groups]
    dtype = bench.model.get_input_embeddings().weight.dtype
    return [{**collate([item], 0, dtype, bench.device), "weights": weights([item]).to(bench.device)} for item in packs]


def train_step(
    model: torch.nn.Module, batches: Sequence[dict[str, Any]], device: str, every_token: bool, is_mixed: bool
) -> None:
    """One optimiser step's gradients over the batches."""
    for batch in batches:
        with torch.autocast(device, torch.bfloat16, enabled=is_mixed):
            if every_token:
                inputs = {name: batch[name] for name in ("input_ids", "pixel_values_videos")}
                loss = model(**inputs, labels=batch["input_ids"], use_cache=False).loss
            else:
                loss = loss_of(model, batch)
        loss.backward()
    model.zero_grad(set_to_none=True)


def time_training(bench: Bench, way: str, repeats: int, profiles: Path | None) -> tuple[float, float]:
    model = attach_lora(bench.model, TRAIN)
    model.train()
    is_usual = way == "usual"
    groups = [[question] for question in bench.clip.questions[:4]]
    if way not in ("usual", "separate"):
        groups = [list(bench.clip.questions)] * CLIPS_TRAINED
    batches = make_batches(bench, groups)

    def timed(is_mixed: bool) -> tuple[float, float]:
        step = partial(train_step, model, batches, bench.device, is_usual, is_mixed)
        return measured(step, bench.device, repeats)

    on_gpu = bench.device == "cuda"
    if is_usual:
        compilation.prepare(bench.model, False, len(compilation.of(bench.model)))
        model.enable_input_require_grads()
        # With the casts of mixed precision and without: the faster is the baseline.
        taken, peak = min(timed(False), timed(on_gpu))
        compilation.restore(bench.model)
    else:
        with compilation.prepared(bench.model, TRAIN, batches[0]["input_ids"].shape[1]):
            taken, peak = timed(on_gpu)
            if profiles is not None:
                write_profile(
                    partial(train_step, model, batches[:1], bench.device, False, on_gpu), profiles / f"{way}.txt"
                )
    model.unload()
    bench.model.eval()
    gc.collect()
    return sum(map(len, groups)) / taken, peak


def write_profile(step: Callable[[], object], path: Path) -> None:
    """The kernels of a step by the time that they take."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    path.parent.mkdir(parents=True, exist_ok=True)
    table = profile.key_averages().table(sort_by="self_device_time_total", row_limit=60, max_name_column_width=90)
    path.write_text(table, encoding="utf-8")


def time_scoring(bench: Bench, way: str, repeats: int) -> tuple[float, float]:
    asked = [QuestionPrompt(question.text, question.choices) for question in bench.clip.questions]
    if way == "usual":
        taken, peak = measured(lambda: generate(bench, asked[:4]), bench.device, repeats)
        return 4 / taken, peak
    groups = [[item] for item in asked[:4]] if way == "separate" else [asked] * CLIPS_SCORED
    clips = [(bench.clip.subtitles, bench.frames, group) for group in groups]

    def score() -> None:
        for _ in choose(bench.model, bench.encoder, clips):
            pass

    compilation.prepare(bench.model, bench.device == "cuda", 0)
    taken, peak = measured(score, bench.device, repeats)
    compilation.restore(bench.model)
    return sum(map(len, groups)) / taken, peak


@torch.inference_mode()
def generate(bench: Bench, asked: Sequence[QuestionPrompt]) -> None:
    """One token each, as `model.generate` does it."""
    item = training_pack(bench.encoder, bench.clip, bench.clip.questions[:1], bench.frames)
    dtype = bench.model.get_input_embeddings().weight.dtype
    for one in asked:
        pixels = collate([item], 0, dtype, bench.device)["pixel_values_videos"]
        ids = bench.encoder.prefix(bench.clip.subtitles)[0] + bench.encoder.suffix(one.question, one.choices)
        tokens = torch.tensor([ids], device=bench.device)
        bench.model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            pixel_values_videos=pixels,
            max_new_tokens=1,
            do_sample=False,
            pad_token_id=0,
        )


def quantise(model: torch.nn.Module) -> None:
    """The language model's layers to NF4 in place, as loading with quantisation leaves them."""
    import bitsandbytes

    def quantised(plain: torch.nn.Linear) -> torch.nn.Module:
        shape = plain.in_features, plain.out_features
        made = bitsandbytes.nn.Linear4bit(*shape, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
        weight = plain.plain_weight().bfloat16() if isinstance(plain, Float8Linear) else plain.weight
        made.weight = bitsandbytes.nn.Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4")
        return made.to(weight.device)

    if any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in model.modules()):
        return
    replace_layers(model, quantised)
    gc.collect()
    torch.cuda.empty_cache()


@contextmanager
def card_of(gigabytes: int) -> Iterator[None]:
    """No more of the GPU than a smaller card has."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(gigabytes * 1e9 / torch.cuda.mem_get_info()[1])
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def time_way(bench: Bench, way: str, repeats: int, profiles: Path | None = None) -> Row:
    train, score = time_training(bench, way, repeats, profiles), time_scoring(bench, way, repeats)
    print(f"{way}: {train[0]:.2f} in training, {score[0]:.2f} in scoring", file=sys.stderr, flush=True)
    return Row(train[0], score[0], train[1], score[1])


def time_all(bench: Bench, repeats: int, ways: Sequence[str], profiles: Path | None) -> dict[str, Row]:
    """Rows by way, the slowest first."""
    rows = {}
    for way in (way for way in WAYS if way in ways):
        if way == "fp8":
            replace_layers(bench.model, Float8Linear)
        if way not in ("separate", "packed", "fp8") and bench.device == "cuda":
            quantise(bench.model)
        with card_of(int(way.removesuffix(" GB"))) if way.endswith(" GB") else nullcontext():
            rows[way] = time_way(bench, way, repeats, profiles)
        if way in ("packed", "fp8") and " 4" in attention.name_of(bench.model):
            # Another operation behind the same call: nothing is compiled again.
            with mock.patch.object(flash, "kernels_for", lambda *_: flash.OF_TORCH):
                rows[f"{way} FA2"] = time_way(bench, f"{way} FA2", repeats)
        if way in ("packed", "fp8") and bench.device == "cuda":
            time_words(bench, way)
    first = {"usual": rows.pop("usual")} if "usual" in rows else {}
    return first | rows


def replace_layers(model: torch.nn.Module, make: Callable[[Any], torch.nn.Module]) -> None:
    replace_projections(model, make)
    torch._dynamo.reset()


def limit_of(bench: Bench, dtype: str) -> tuple[float, float]:
    """Questions per second of training and scoring if the frozen products of a pack were all."""
    tokens = len(training_pack(bench.encoder, bench.clip, bench.clip.questions, bench.frames))
    layers = compilation.of(bench.model)
    shapes = Counter(
        (module.in_features, module.out_features)
        for name, module in bench.model.named_modules()
        if re.fullmatch(LORA_TARGETS, name) and module in set(layers[0].modules())
    )
    there, back = (
        len(layers) * sum(count * seconds(*shape) for shape, count in shapes.items())
        for seconds in (
            lambda inner, outer: limit.product_seconds(bench.device, dtype, tokens, inner, outer),
            lambda inner, outer: limit.product_seconds(bench.device, dtype, tokens, outer, inner),
        )
    )
    count = len(bench.clip.questions)
    return count / (there + back), count / there


def time_words(bench: Bench, way: str) -> None:
    """Tells the milliseconds of a token by the questions answered together, the first left out, with an adapter."""
    model = attach_lora(bench.model, TRAIN).eval()
    dtype = bench.model.get_input_embeddings().weight.dtype
    for weight in (weight for name, weight in model.named_parameters() if ".lora_" in name):
        # As an adapter is loaded.
        weight.data = weight.data.to(dtype)
    reading = read(model, bench.encoder, bench.clip.subtitles, bench.frames)
    for is_graphed in (True, False):
        taken = {}
        for count in ASKED_IN_WORDS:
            asked = [QuestionPrompt(item.text, None) for item in bench.clip.questions[:count]]
            with mock.patch.object(graphs, "suit", lambda _, wanted=is_graphed: wanted):
                seconds = [
                    measured(partial(answer, model, bench.encoder, reading, asked, tokens), bench.device, 1)[0]
                    for tokens in WORD_TOKENS
                ]
            taken[count] = (seconds[1] - seconds[0]) / (WORD_TOKENS[1] - WORD_TOKENS[0]) * 1000
        told = ", ".join(f"{value:.1f} for {count} together" for count, value in taken.items())
        how = "with a CUDA graph" if is_graphed else "step by step"
        print(f"words of {way}, {how}: ms a token {told}", flush=True)
    graphs.release(model)
    model.unload()


def reading_ms(model: torch.nn.Module) -> float:
    """Milliseconds in which a GPU reads the language model's weights once, as every token must."""
    weights = sum(part.nbytes for module in [*compilation.of(model), model.lm_head] for part in module.parameters())
    held = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    taken, _ = measured(lambda: held.view(torch.int64).sum(), "cuda", 10)
    return weights / held.nbytes * taken * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="the tiny model on the CPU")
    parser.add_argument("--questions", type=int, help="questions a clip; 32, or 16 with --tiny")
    parser.add_argument("--repeats", type=int, help="timed runs, of which the median counts; 3, or 7 with --tiny")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="all by default, of which the tiny model knows three")
    parser.add_argument("--profiles", type=Path, help="a folder for the kernels of one training pack, a file a way")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        parser.error("the 7B model needs a GPU: add --tiny to time the tiny one on this machine.")
    known = ("separate", "packed", "usual") if options.tiny else WAYS
    ways = [way for way in known if way in (options.ways or known)]
    if not ways:
        parser.error(f"the tiny model has no {' or '.join(options.ways)}: choose of {', '.join(known)}.")
    bench = make_bench(options.tiny, options.questions or (16 if options.tiny else 32))
    dtypes = ("float32",) if options.tiny else ("bfloat16", limit.FLOAT8)
    limits = {dtype: limit_of(bench, dtype) for dtype in dtypes}
    print(f"attention: {attention.name_of(bench.model)}", flush=True)
    if not options.tiny:
        print(f"reading the language model's weights takes {reading_ms(bench.model):.1f} ms", flush=True)
    repeats = options.repeats or (7 if options.tiny else 3)
    tell(bench, time_all(bench, repeats, ways, options.profiles), limits, repeats)


def tell(bench: Bench, rows: dict[str, Row], limits: dict[str, tuple[float, float]], repeats: int) -> None:
    prefix, question = bench.encoder.prefix(bench.clip.subtitles)[0], bench.clip.questions[0]
    suffix = bench.encoder.suffix(question.text, question.choices)
    allowed = "; ".join(f"{best[0]:.1f} and {best[1]:.1f} in {dtype}" for dtype, best in limits.items())
    print(
        f"{len(bench.clip.questions)} questions of about {len(suffix)} tokens behind a prefix of {len(prefix)}; "
        f"questions per second, median of {repeats}; `of limit`: of what the frozen products alone would allow "
        f"({allowed}):\n"
    )
    names = ("/usual", "/separate", "of limit", "GB")
    print(f"{'way':<11}" + "".join(f"{name:>10}" for name in ("train", *names, "score", *names)))
    if bench.device == "cuda":
        rows = {"published": Row(PUBLISHED_TOKENS / (len(prefix) + len(suffix)), math.nan, math.nan, math.nan), **rows}
    for way, row in rows.items():
        best = limits[limit.FLOAT8 if way.startswith("fp8") else next(iter(limits))]
        print(
            f"{way:<11}"
            + "".join(
                f"{getattr(row, kind):>10.2f}{ratio(rows, way, 'usual', kind):>10.1f}"
                f"{ratio(rows, way, 'separate', kind):>10.1f}{getattr(row, kind) / best[place]:>10.1%}"
                f"{getattr(row, f'{kind}_gb'):>10.1f}"
                for place, kind in enumerate(("train", "score"))
            )
            .replace("nan%", "   -")
            .replace("nan", "  -")
        )
    tell_figures(bench, rows, limits)


def ratio(rows: dict[str, Row], way: str, to: str, kind: str) -> float:
    """NaN where the other was not timed."""
    return getattr(rows[way], kind) / getattr(rows[to], kind) if to in rows and way in rows else math.nan


def tell_figures(bench: Bench, rows: dict[str, Row], limits: dict[str, tuple[float, float]]) -> None:
    figures = {
        "train_ratio": ratio(rows, "packed", "usual", "train"),
        "score_ratio": ratio(rows, "packed", "usual", "score"),
        "pack_ratio": ratio(rows, "packed", "separate", "train"),
        "pack_score_ratio": ratio(rows, "packed", "separate", "score"),
        "train_ratio_fp8": ratio(rows, "fp8", "usual", "train"),
        "score_ratio_fp8": ratio(rows, "fp8", "usual", "score"),
        "train_of_limit": rows["packed"].train / next(iter(limits.values()))[0] if "packed" in rows else math.nan,
        "score_of_limit": rows["packed"].score / next(iter(limits.values()))[1] if "packed" in rows else math.nan,
    }
    figures |= {
        f"train_ratio_{way.split()[0]}gb": ratio(rows, way, "usual", "train") for way in rows if way.endswith("GB")
    }
    machine = torch.cuda.get_device_name() if bench.device == "cuda" else f"{platform.machine()} CPU"
    if bench.device == "cpu":
        machine += f", {torch.get_num_threads()} threads"
    rounded = {name: round(value, 2) for name, value in figures.items() if not math.isnan(value)}
    print(json.dumps({"benchmark": "throughput", "machine": machine, "figures": rounded}))


if __name__ == "__main__":
    main()
