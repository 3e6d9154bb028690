"""What is read together, what is refused, and what a training would take: told before any weights are loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from builders.projects import ROOT, add_inputs, make_project
from builders.refusals import sentence
from builders.tokenizers import tokenizer_of
from builders.trainings import clip, clips, frames_of
from cinetune import params
from cinetune.data.mini import story
from cinetune.model import planning
from cinetune.model.encoder import Encoder
from cinetune.model.packing import training_pack
from cinetune.model.planning import Plan, plan, schedule
from cinetune.task.prompts import VIDEO

pytestmark = pytest.mark.training

PARAMS = params.load(ROOT / "params.yaml")
ANY = 10**6


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = tokenizer_of()
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
    spoken = "\n".join(f"<subtitle> {name} needs the key." for name in story.FILM.names[:12])
    first, last = story.FILM.names[0], story.FILM.names[11]
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
