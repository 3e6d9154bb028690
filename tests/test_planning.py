"""What is read together, what is refused, and what a training would take: told before any weights are loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import VideoLlavaConfig

from cinetune import estimates, memory, params, planning, pretraining
from cinetune.packing import Encoder, training_pack
from cinetune.params import Params
from cinetune.planning import Plan, PlannedPack, plan, schedule
from cinetune.prompts import VIDEO
from conftest import add_inputs, make_project, sentence
from test_training import clip, clips, frames_of

pytestmark = pytest.mark.training

PARAMS = params.load(Path(__file__).resolve().parents[1] / "params.yaml")
ANY = 10**6


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = pretraining.make_tokenizer(1024, seed=3)
    return Encoder(tokenizer, tokenizer.convert_tokens_to_ids(VIDEO), num_video_tokens=10, max_subtitle_tokens=512)


def lengths(encoder: Encoder, found: Plan) -> list[int]:
    """Of the packs as they are really made."""
    return [
        len(training_pack(encoder, pack.clip, pack.questions, frames_of("x"), pack.in_words)) for pack in found.packs
    ]


def test_the_tokens_that_are_planned_are_those_that_are_read(encoder: Encoder) -> None:
    for in_words in (0, 2):
        found = plan(clips(5, 1, 7), encoder, 4, ANY, in_words)
        assert [pack.tokens for pack in found.packs] == lengths(encoder, found)
        assert all(pack.prefix_tokens == len(encoder.prefix(pack.clip.subtitles)[0]) for pack in found.packs)


def test_a_clip_with_too_many_tokens_is_split_and_loses_no_question(encoder: Encoder) -> None:
    whole = plan([clip("long", 12)], encoder, 16, ANY, 1)
    assert len(whole.packs) == 1
    limit = whole.packs[0].tokens // 2
    split = plan([clip("long", 12), clip("short", 1)], encoder, 16, limit, 1)
    assert len(split.packs) > 3 and max(lengths(encoder, split)) <= limit
    asked = [question.question_id for pack in split.packs[:-1] for question in pack.questions]
    assert asked == [f"long-{number}" for number in range(12)]


def test_a_question_that_does_not_fit_is_named_with_both_remedies(encoder: Encoder) -> None:
    said = sentence(lambda: plan(clips(2, 3), encoder, 4, 60))
    assert "'train0-" in said and "train.tokens_per_pack=60" in said and "prompt.max_subtitle_tokens" in said


def test_a_clip_without_questions_is_named(encoder: Encoder) -> None:
    empty = dataclasses.replace(clip("empty", 1), questions=())
    assert "'empty' has no questions" in sentence(lambda: plan([clip("a", 2), empty], encoder, 4, ANY))


def test_a_tokenizer_that_would_leave_nothing_to_learn_is_refused(encoder: Encoder) -> None:
    """Without an end token, or with letters that look alike to it."""

    class Endless:
        eos_token_id = None

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return encoder.tokenizer(*arguments, **options)

    endless = dataclasses.replace(encoder, tokenizer=Endless())
    assert "no end token" in sentence(lambda: plan(clips(2), endless, 4, ANY))


def test_subtitles_lose_their_end_or_their_middle_and_it_is_counted(encoder: Encoder) -> None:
    spoken = "\n".join(f"<subtitle> {name} needs the key." for name in pretraining.story.NAMES[:12])
    first, last = pretraining.story.NAMES[0], pretraining.story.NAMES[11]
    whole, none_dropped = encoder.prefix(spoken)
    for truncate, has_last in (("end", False), ("middle", True)):
        short = dataclasses.replace(encoder, max_subtitle_tokens=20, truncate=truncate)
        ids, dropped = short.prefix(spoken)
        text = encoder.decode(ids)
        # A word that is cut in two is read as other tokens.
        assert first in text and (last in text) is has_last
        assert none_dropped == 0 < dropped and abs(len(whole) - len(ids) - dropped) <= 3
        given = [dataclasses.replace(clip("a", 2), subtitles=spoken), clip("b", 1)]
        found = plan(given, short, 1, ANY)
        assert (found.dropped_subtitle_tokens, found.shortened_clips) == (dropped, 1)


def test_steps_are_those_of_the_epochs_or_fewer() -> None:
    train = dataclasses.replace(PARAMS.train, epochs=3, clips_per_step=4, validations_per_epoch=2, max_steps=0)
    assert schedule(10, train) == planning.Schedule(3, 9, 1)
    assert schedule(100, dataclasses.replace(train, max_steps=30)) == planning.Schedule(25, 30, 12)
    assert schedule(100, dataclasses.replace(train, max_steps=5)) == planning.Schedule(25, 5, 5)
    assert schedule(1, dataclasses.replace(train, epochs=0.1)) == planning.Schedule(1, 1, 1)


# ---- what it would take


def of_7b(change: Callable[[Params], Params]) -> estimates.Estimate:
    """Of one pack as it was measured: 2,056 video tokens, 620 of text, 32 questions of 160."""
    prefix = 2056 + 620
    item = clip("a", 5)
    asked = item.questions * 7
    pack = PlannedPack(item, asked[:32], [], prefix + 32 * 160, prefix)
    given = change(PARAMS.override("model", {"dtype": "bfloat16"}))
    size = estimates.size_of(VideoLlavaConfig(), given.train.lora_rank)
    return estimates.estimate(Plan([pack], 0, 0), size, given.override("train", {"epochs": 1, "clips_per_step": 1}))


def test_memory_is_what_was_measured_on_an_h100_within_a_tenth() -> None:
    """bf16 without and with activation checkpointing, and NF4 with it: 48.8, 18.9 and 9.2 GB."""
    plain = of_7b(lambda given: given)
    assert plain.bytes_kept == pytest.approx(48.8e9, rel=0.1)
    assert plain.bytes_checkpointed == pytest.approx(18.9e9, rel=0.1)
    quantised = of_7b(lambda given: given.override("model", {"quantization": "nf4"}))
    assert quantised.bytes_checkpointed == pytest.approx(9.2e9, rel=0.1)


def test_float8_in_both_orders_takes_what_bfloat16_takes() -> None:
    plain = of_7b(lambda given: given)
    rounded = of_7b(lambda given: given.override("model", {"quantization": "fp8"}))
    assert (rounded.bytes_kept, rounded.bytes_checkpointed) == (plain.bytes_kept, plain.bytes_checkpointed)


def test_the_matrix_products_of_a_step_take_their_known_time() -> None:
    """109 questions a second would be trained at the 775 TFLOP/s of the products alone."""
    assert 32 / (of_7b(lambda given: given).flops / 775e12) == pytest.approx(109, rel=0.05)


def test_lora_weights_are_counted() -> None:
    assert estimates.size_of(VideoLlavaConfig(), 8).trained == 19_988_480


def test_a_tokenizer_that_is_not_there_is_guessed(encoder: Encoder) -> None:
    tokenizer = estimates.GuessedTokenizer()
    guessed = Encoder(tokenizer, tokenizer.video_token_id, num_video_tokens=10, max_subtitle_tokens=20)
    found = plan(clips(5, 3), guessed, 4, ANY, 1)
    assert found.questions == 8 + 3 and found.dropped_subtitle_tokens > 0
    assert len(set(guessed.letters())) == 5


def test_memory_that_runs_out_is_one_sentence_with_the_knobs() -> None:
    def run_out(error: BaseException) -> None:
        with memory.explained("training"):
            raise error

    for error, place in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "GPU"),
        (MemoryError(), "machine"),
    ):
        said = sentence(lambda error=error: run_out(error))
        assert place in said and "train.tokens_per_pack" in said and "model.quantization" in said
    said = sentence(lambda: _allocate_too_much())
    assert "machine" in said
    with pytest.raises(RuntimeError, match="something else"):
        run_out(RuntimeError("something else"))


def _allocate_too_much() -> None:
    with memory.explained("training"):
        torch.empty(2**55, dtype=torch.uint8)


@pytest.mark.slow
def test_a_dry_run_tells_the_plan_with_and_without_the_base(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    add_inputs(project)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {base: nobody/Video-LLaVA, quantization: nf4, dtype: bfloat16}\n", encoding="utf-8")
    (project.root / "base-model/model.safetensors").unlink()
    for flags, told in (([], "packs     "), (["--params", str(recipe)], "the 7B's shape")):
        done = project.cinetune("train", "--dry-run", *flags)
        assert done.returncode == 0, done.stderr[-2000:]
        assert told in done.stdout
        assert {"packs", "tokens", "steps", "memory", "time"} <= {line.split()[0] for line in done.stdout.splitlines()}
    assert not (project.root / "outputs").exists() and not (project.root / "mlflow.db").exists()
