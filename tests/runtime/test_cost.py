"""What a training would take: told before any weights are loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from transformers import VideoLlavaConfig

from builders.projects import ROOT
from builders.tokenizers import tokenizer_of
from builders.trainings import clip, clips
from cinetune import params
from cinetune.model.encoder import Encoder
from cinetune.model.planning import Plan, PlannedPack, plan
from cinetune.model.sizes import size_of
from cinetune.params import Params
from cinetune.runtime import cost
from cinetune.task import questions
from cinetune.task.prompts import VIDEO

pytestmark = pytest.mark.training


PARAMS = params.load(ROOT / "params.yaml")


ANY = 10**6


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = tokenizer_of()
    return Encoder(tokenizer, tokenizer.convert_tokens_to_ids(VIDEO), num_video_tokens=10, max_subtitle_tokens=512)


def of_7b(change: Callable[[Params], Params]) -> cost.Estimate:
    """Of one pack as it was measured: 2,056 video tokens, 620 of text, 32 questions of 160."""
    prefix = 2056 + 620
    item = clip("a", 5)
    asked = item.questions * 7
    pack = PlannedPack(item, asked[:32], [], prefix + 32 * 160, prefix)
    given = change(PARAMS.override("model", {"dtype": "bfloat16"}))
    size = size_of(VideoLlavaConfig(), given.train.lora_rank)
    return cost.estimate(Plan([pack], 0, 0), size, given.override("train", {"epochs": 1, "clips_per_step": 1}))


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
    assert size_of(VideoLlavaConfig(), 8).trained == 19_988_480


def test_a_tokenizer_that_is_not_there_is_guessed(encoder: Encoder) -> None:
    tokenizer = cost.GuessedTokenizer()
    guessed = Encoder(tokenizer, tokenizer.video_token_id, num_video_tokens=10, max_subtitle_tokens=20)
    found = plan(clips(5, 3), guessed, 4, ANY, 1)
    assert found.questions == 8 + 3 and found.dropped_subtitle_tokens > 0
    assert len(set(guessed.letters())) == 5


def test_of_many_clips_a_part_is_counted_the_longest_among_them(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = clips(*[4] * 60)
    given[17] = replace(given[17], subtitles="<subtitle> " + "a very long talk " * 40)
    monkeypatch.setattr(questions, "load", lambda root, split: given)
    whole = cost.training_plan(PARAMS, encoder)
    monkeypatch.setattr(cost, "COUNTED_CLIPS", 10)
    monkeypatch.setattr(cost, "LONGEST_CLIPS", 2)
    part = cost.training_plan(PARAMS, encoder)
    assert whole.counted_clips == whole.training_clips == part.training_clips
    assert part.counted_clips <= 12 and part.plan.longest.tokens == whole.plan.longest.tokens
    assert part.plan.questions == whole.plan.questions and len(part.plan.packs) == len(whole.plan.packs)
    assert part.plan.tokens == pytest.approx(whole.plan.tokens, rel=0.02)
    assert str(part.counted_clips) in cost.counted_note(part)


@pytest.mark.parametrize(
    ("device", "told"),
    [("cpu", "1e+03 hours on this machine's processors"), ("cuda", "125 hours on 8 GPUs like this machine's")],
)
def test_the_time_is_that_of_all_gpus_and_of_one_machine_s_processors(device: str, told: str) -> None:
    """Eight processes on one machine's processors take turns."""
    given = PARAMS.override("train", {"processes": 8, "clips_per_step": 8})
    plan_of_one = cost.TrainingPlan(Plan([PlannedPack(clip("a", 5), clip("a", 5).questions, [], 9, 3)], 0, 0), 1, 1, 1)
    hours = 1000 * 3600 * cost.SHARE_OF_MATRIX_PRODUCTS * 1e12
    found = cost.Estimate(cost.schedule(1, given.train), 0, 0, hours)
    [line] = [line for line in cost.lines(plan_of_one, found, given, device, 1e12, []) if line.startswith("time")]
    assert told in line and "on 8 H100" in line


def test_several_processes_are_told_with_their_packs_and_with_what_the_lengths_allow() -> None:
    """Eight packs of which one is twice as long keep eight processes busy for 9 / 16 of the time."""
    item = clip("a", 5)
    given = PARAMS.override("train", {"processes": 8, "clips_per_step": 8, "epochs": 1})
    size = size_of(VideoLlavaConfig(), given.train.lora_rank)
    hours = {}
    for name, lengths in (("even", [1000] * 8), ("uneven", [1000] * 7 + [2000])):
        packs = [PlannedPack(item, item.questions, [], length, 0) for length in lengths]
        plan_of_all = cost.TrainingPlan(Plan(packs, 0, 0), 8, 1, 8)
        found = cost.estimate(plan_of_all.plan, size, given)
        told = dict(line.split(maxsplit=1) for line in cost.lines(plan_of_all, found, given, "cuda", 1e12, []))
        assert told["processes"].startswith("8, each with 1 packs a step; ")
        hours[name] = found.flops / found.share_of_linear, told["processes"]
    assert "equally long here" in hours["even"][1]
    [share] = re.findall(r"packs allow ([\d.]+)% of linear", hours["uneven"][1])
    assert float(share) == pytest.approx(100 * 9 / 16, abs=1)
    # As long as if all eight were long.
    assert hours["uneven"][0] == pytest.approx(2 * hours["even"][0], rel=0.02)
    alone = given.override("train", {"processes": 1})
    assert cost.estimate(plan_of_all.plan, size, alone).share_of_linear == pytest.approx(1)
