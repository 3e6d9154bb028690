"""Which questions of a clip are read together, and how many tokens that takes: known before any weights are loaded.

A pack holds at most `questions_per_pack` questions and `tokens_per_pack` tokens. Only subtitles are ever shortened:
a question that does not fit behind its clip's prefix is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cinetune.errors import InputError
from cinetune.model.encoder import Encoder
from cinetune.model.packing import pieces
from cinetune.params import TrainParams
from cinetune.task.description import LETTERS
from cinetune.task.questions import ClipQuestions, Question


@dataclass(frozen=True)
class PlannedPack:
    """Some questions of one clip; those `in_words` are asked a second time without options.

    tokens: all that it reads, of which `prefix_tokens` are shared.
    """

    clip: ClipQuestions
    questions: Sequence[Question]
    in_words: Sequence[Question]
    tokens: int
    prefix_tokens: int

    @property
    def num_asked(self) -> int:
        return len(self.questions) + len(self.in_words)


@dataclass(frozen=True)
class ClipTokens:
    """Tokens of a clip's prefix, those of its subtitles that are `lost`, and by question id what each adds to a pack.

    With its options, and without (0 where nobody asks).
    """

    prefix: int
    lost: int
    by_question: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Plan:
    """Packs in the clips' order; `dropped_subtitle_tokens` of `shortened_clips` are never read."""

    packs: list[PlannedPack]
    dropped_subtitle_tokens: int
    shortened_clips: int

    @property
    def tokens(self) -> int:
        return sum(pack.tokens for pack in self.packs)

    @property
    def questions(self) -> int:
        """Of one epoch, those that are asked a second time in words included."""
        return sum(pack.num_asked for pack in self.packs)

    def scaled(self, factor: float) -> Plan:
        """The plan of so many times as many clips of the same kind."""
        number = round(factor * len(self.packs))
        packs = (self.packs * math.ceil(factor))[:number]
        return Plan(packs, round(factor * self.dropped_subtitle_tokens), round(factor * self.shortened_clips))

    def __add__(self, other: Plan) -> Plan:
        return Plan(
            self.packs + other.packs,
            self.dropped_subtitle_tokens + other.dropped_subtitle_tokens,
            self.shortened_clips + other.shortened_clips,
        )

    @property
    def longest(self) -> PlannedPack:
        return max(self.packs, key=lambda pack: pack.tokens)


@dataclass(frozen=True)
class Schedule:
    """Optimiser steps, and after how many of them the adapter is validated and saved."""

    steps_per_epoch: int
    steps: int
    validation_interval: int


def schedule(num_packs: int, params: TrainParams) -> Schedule:
    """Optimiser steps of a training on so many packs an epoch."""
    steps_per_epoch = math.ceil(num_packs / params.clips_per_step)
    steps = max(1, math.ceil(params.epochs * steps_per_epoch))
    steps = min(steps, params.max_steps or steps)
    # A training that ends before its first validation would have no best checkpoint.
    interval = min(max(1, steps_per_epoch // params.validations_per_epoch), steps)
    return Schedule(steps_per_epoch, steps, interval)


def plan(
    clips: Sequence[ClipQuestions],
    encoder: Encoder,
    questions_per_pack: int,
    tokens_per_pack: int,
    in_words: int = 0,
    measured: Sequence[ClipTokens] | None = None,
) -> Plan:
    """measured: what `measure` says of the clips, where that is known.

    Raises InputError for a clip without questions, and for a question longer than a pack or the base allows.
    """
    packs: list[PlannedPack] = []
    dropped = shortened = 0
    for clip, tokens in zip(clips, measured or measure(clips, encoder, in_words > 0), strict=True):
        dropped += tokens.lost
        shortened += tokens.lost > 0
        count = -(-len(clip.questions) // questions_per_pack)
        while True:
            found = _split(clip, count, len(packs), in_words, tokens)
            longest = max(found, key=lambda pack: pack.tokens)
            if longest.tokens <= tokens_per_pack:
                break
            if count == len(clip.questions):
                raise InputError(
                    f"question {longest.questions[0].question_id!r} takes {longest.tokens} tokens with its clip's "
                    f"prefix, more than train.tokens_per_pack={tokens_per_pack}: raise that, or lower "
                    "prompt.max_subtitle_tokens."
                )
            count += 1
        packs += found
    return Plan(packs, dropped, shortened)


def measure(clips: Sequence[ClipQuestions], encoder: Encoder, is_in_words: bool) -> list[ClipTokens]:
    """The tokens of each clip, which is most of the work of planning.

    Raises InputError for a clip without questions, and for a question longer than the base allows.
    """
    # A tokenizer that cannot name the letters, or end an answer, would leave nothing to learn.
    most = max((len(question.choices) for clip in clips for question in clip.questions), default=0)
    encoder.letters(most)
    letters = [len(answer) for answer in encoder.answers(LETTERS[:most])]
    found = []
    for clip in clips:
        if not clip.questions:
            raise InputError(f"clip {clip.clip_id!r} has no questions: leave it out.")
        prefix, lost = encoder.prefix(clip.subtitles)
        lengths = _lengths(encoder, clip.questions, letters, is_in_words)
        longest_id = max(lengths, key=lambda question_id: max(lengths[question_id]))
        encoder.check_positions(len(prefix) + max(lengths[longest_id]), f"question {longest_id!r} behind its clip")
        found.append(ClipTokens(len(prefix), lost, lengths))
    return found


def check_positions(clips: Sequence[ClipQuestions], encoder: Encoder, max_new_tokens: int) -> None:
    """Raises InputError where a question and its answer in words would go beyond what the base knows."""
    for clip in clips:
        prefix = len(encoder.prefix(clip.subtitles)[0])
        suffixes = encoder.suffixes([(question.text, question.options) for question in clip.questions])
        longest = max(map(len, suffixes), default=0)
        what = f"the longest question of clip {clip.clip_id!r} with evaluate.max_new_tokens={max_new_tokens}"
        encoder.check_positions(prefix + longest + max_new_tokens, what)


def _split(clip: ClipQuestions, count: int, first: int, in_words: int, measured: ClipTokens) -> list[PlannedPack]:
    """The clip's questions in `count` packs, of which the first has the number `first`."""
    packs: list[PlannedPack] = []
    for questions in pieces(clip.questions, -(-len(clip.questions) // count)):
        # Others for the next clip, the same in every epoch: a pack is a function of its number.
        with_options = [question for question in questions if not question.is_open]
        chosen = np.random.default_rng(first + len(packs)).permutation(len(with_options))[:in_words]
        again = [with_options[i] for i in chosen]
        tokens = sum(measured.by_question[question.question_id][0] for question in questions)
        tokens += sum(measured.by_question[question.question_id][1] for question in again)
        packs.append(PlannedPack(clip, questions, again, measured.prefix + tokens, measured.prefix))
    return packs


def _lengths(
    encoder: Encoder, questions: Sequence[Question], letters: Sequence[int], is_in_words: bool
) -> dict[str, tuple[int, int]]:
    """Tokens that each question adds to a pack with its options, and without (0 where nobody asks)."""
    asked = [len(ids) for ids in encoder.suffixes([(item.text, item.options) for item in questions])]
    # The last token of an answer is only ever a target.
    told = iter(encoder.answers([item.words for item in questions if item.is_open]))
    taught = [len(next(told)) if item.is_open else letters[item.answer] for item in questions]
    lettered = [length + answer - 1 for length, answer in zip(asked, taught, strict=True)]
    worded = [0] * len(questions)
    if is_in_words:
        answers = encoder.answers([item.answer_text for item in questions])
        asked = [len(ids) for ids in encoder.suffixes([(item.text, None) for item in questions])]
        worded = [length + len(answer) - 1 for length, answer in zip(asked, answers, strict=True)]
    return {item.question_id: (one, other) for item, one, other in zip(questions, lettered, worded, strict=True)}
