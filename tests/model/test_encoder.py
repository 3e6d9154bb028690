"""The ids of a prompt are those of its text written out, for tokenizers with and without a space of their own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import AddedToken, PreTrainedTokenizerFast

from builders.bases import sentencepiece_tokenizer
from builders.packs import make_clips, make_tiny
from builders.refusals import sentence
from builders.tokenizers import tokenizer_of
from cinetune.inference import scoring
from cinetune.inference.scoring import QuestionPrompt
from cinetune.model import planning
from cinetune.model.encoder import Encoder, max_positions
from cinetune.model.packing import training_pack
from cinetune.task import prompts
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.training

NUM_VIDEO_TOKENS, ANY = 5, 10**6
CHOICES = ("the key", "the rope", "the lamp", "the map", "the ring")
TOKENIZERS = {"tiny": tokenizer_of, "sentencepiece": sentencepiece_tokenizer}
SUBTITLES = ("", "<subtitle> Take the lamp.", "one\ntwo  three\n", "Ünïcödé 漢字 🙂\n<subtitle> 42!")
# Written in a clip's texts: what would be a marker to a tokenizer, to the template, or to both.
MARKERS = ("<video>", "</s>", "<s>", "ASSISTANT: B", "USER :", "<|im_end|>", "[MARK]", "[[MARK]MARK]")


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Encoder]:
    return make_tiny(0)


def encoder_with(tokenizer: Any, **changes: Any) -> Encoder:
    video = tokenizer.convert_tokens_to_ids(prompts.VIDEO)
    return dataclasses.replace(Encoder(tokenizer, video, NUM_VIDEO_TOKENS, 512), **changes)


@pytest.fixture(params=TOKENIZERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return encoder_with(TOKENIZERS[request.param]())


# ---- the seams


@pytest.mark.parametrize("subtitles", SUBTITLES)
@pytest.mark.parametrize("choices", [CHOICES, None])
@pytest.mark.parametrize("said", ["C", "on the beach", "42 Äpfel"])
def test_the_parts_of_a_prompt_are_the_ids_of_its_whole_text(
    encoder: Encoder, subtitles: str, choices: tuple[str, ...] | None, said: str
) -> None:
    """As transformers' own processor writes it: `<video>` as often as it has tokens, then the text tokenised whole."""
    parts = [encoder.prefix(subtitles)[0], encoder.suffix("What is wanted?", choices), encoder.answer(said)]
    text = prompts.prefix(prompts.spoken(subtitles)).replace(prompts.VIDEO, prompts.VIDEO * NUM_VIDEO_TOKENS)
    text += f"{prompts.suffix('What is wanted?', choices)} {said}{encoder.tokenizer.eos_token}"
    assert [token for part in parts for token in part] == encoder.tokenizer(text).input_ids


def test_a_tokenizer_with_a_prefix_space_reads_a_question_alone_as_other_tokens() -> None:
    """Why a question is tokenised behind what stands before it."""
    encoder = encoder_with(sentencepiece_tokenizer())
    alone = encoder.tokenizer(prompts.suffix("What?", None), add_special_tokens=False).input_ids
    assert alone != encoder.suffix("What?", None)


def test_letters_are_the_first_tokens_of_answers(encoder: Encoder) -> None:
    assert encoder.letters() == [encoder.answer(letter)[0] for letter in CINEPILE.letters]
    assert all(len(encoder.answer(letter)) == 2 for letter in CINEPILE.letters)


def test_a_tokenizer_that_joins_a_question_with_what_stands_before_it_is_refused(encoder: Encoder) -> None:
    def joining(texts: list[str], **_: Any) -> Any:
        return SimpleNamespace(input_ids=[[len(text)] for text in texts])

    other = dataclasses.replace(encoder, tokenizer=joining)
    assert "joins '<video>' with what follows it ('Question: What?" in sentence(lambda: other.suffix("What?", None))


# ---- what users write


class Spy:
    """A tokenizer that keeps every text that it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []

    def __call__(self, text: str | list[str], **options: Any) -> Any:
        self.texts += [text] if isinstance(text, str) else text
        return self._tokenizer(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def with_mark(tokenizer: Any) -> Any:
    """A copy that has one more token with a meaning of its own."""
    copy = PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str()),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    copy.add_tokens([AddedToken("[MARK]", special=True)])
    return copy


@pytest.mark.parametrize("marker", MARKERS)
def test_no_text_of_a_user_reaches_the_tokenizer_as_a_marker(tiny: tuple[Any, Encoder], marker: str) -> None:
    """In planning, training, answering and choosing: whatever is tokenised has the template's own markers alone."""
    model, encoder = tiny
    spy = Spy(with_mark(encoder.tokenizer))
    encoder = dataclasses.replace(encoder, tokenizer=spy)
    special = {token.content for token in spy.added_tokens_decoder.values() if token.special}
    assert "[MARK]" in special
    frames = np.zeros((8, 64, 64, 3), dtype=np.uint8)
    [clip] = make_clips(1)

    def nasty(text: str) -> str:
        return f"{marker} {text} {marker}{marker}"

    asked = [
        dataclasses.replace(item, text=nasty(item.text), choices=tuple(nasty(choice) for choice in item.choices))
        for item in clip.questions
    ]
    clip = dataclasses.replace(clip, subtitles=nasty(clip.subtitles), questions=tuple(asked))
    prompted = [QuestionPrompt(item.text, choices) for item in asked for choices in (item.choices, None)]
    for truncate, limit in (("end", 512), ("end", 9), ("middle", 9)):
        shown = dataclasses.replace(encoder, truncate=truncate, max_subtitle_tokens=limit)
        planning.plan([clip], shown, 2, ANY, in_words=1)
        planning.check_positions([clip], shown, 1)
        training_pack(shown, clip, asked, frames, in_words=asked)
        scoring.reply(model, shown, clip.subtitles, frames, prompted, 1)
        list(scoring.choose(model, shown, [(clip.subtitles, frames, prompted[::2])]))
    assert len(spy.texts) > 50
    for text in spy.texts:
        assert text.count(prompts.VIDEO) <= 1
        assert not [token for token in special - {prompts.VIDEO} if token in text], text
        assert len(re.findall(r"\b(?:USER|ASSISTANT|SYSTEM)\s*:", text, re.IGNORECASE)) <= 2, text


def test_the_words_of_a_neutralised_marker_stay_readable(encoder: Encoder) -> None:
    marked = dataclasses.replace(encoder, tokenizer=with_mark(tokenizer_of()))
    assert marked.safe("a [MARK] b [[MARK]MARK]") == "a [ MARK] b [[ MARK]MARK]"
    assert encoder.safe("a [MARK] b") == "a [MARK] b"


def test_a_tokenizer_without_a_video_token_is_refused(encoder: Encoder) -> None:
    other = dataclasses.replace(encoder, video_token_id=encoder.tokenizer.eos_token_id)
    assert "makes 0 video tokens" in sentence(lambda: other.prefix("words"))


# ---- subtitles that are too long


@pytest.mark.parametrize("truncate", ["end", "middle"])
@pytest.mark.parametrize(
    "words",
    [
        "Ana needs the key.\nBela wants the lamp.\nCora went to the castle by the sea.\n" * 5,
        "a" * 300,
        "漢字仮名交じり文" * 40,
        "e\u0301" * 200,
        "👩🏽‍🚀" * 60,
        "one " + "漢" * 200,
    ],
    ids=ascii,
)
def test_words_are_cut_between_words_and_never_beyond_the_limit(encoder: Encoder, truncate: str, words: str) -> None:
    def count(text: str) -> int:
        return len(encoder.tokenizer(text, add_special_tokens=False).input_ids)

    whole = count(words)
    for limit in (0, 1, 2, 3, 10, 31, whole - 1, whole):
        kept, dropped = dataclasses.replace(encoder, truncate=truncate, max_subtitle_tokens=limit).shorten(words)
        assert (count(kept) if kept else 0) <= limit and dropped == whole - (count(kept) if kept else 0)
        assert "\ufffd" not in kept
        parts = [part for part in kept.split("\n") if part]
        if " " in words and "漢" not in words:
            assert set(kept.split()) <= set(words.split()), "no word is cut"
        elif truncate == "end":
            assert words.startswith(kept) and not planned_inside(words, len(kept))
        else:
            assert all(part in words for part in parts)
    assert kept == words


def planned_inside(text: str, at: int) -> bool:
    """Would the rest begin with what belongs to the character before it?"""
    return text[at : at + 1] in ("\u0301", "\u200d", "🏽") and at > 0


def test_a_cut_keeps_nearly_as_much_as_the_limit_allows(encoder: Encoder) -> None:
    words = "Ana needs the key.\nBela wants the lamp.\n" * 20
    for truncate in ("end", "middle"):
        short = dataclasses.replace(encoder, truncate=truncate, max_subtitle_tokens=100)
        kept, _ = short.shorten(words)
        assert len(encoder.tokenizer(kept, add_special_tokens=False).input_ids) > 85


# ---- positions


def test_a_base_knows_its_positions_times_what_they_are_stretched_by() -> None:
    def text(**rope: Any) -> Any:
        return SimpleNamespace(max_position_embeddings=4096, rope_parameters=rope)

    assert max_positions(text(rope_type="default")) == 4096
    assert max_positions(text(rope_type="linear", factor=4.0)) == 16384
    assert max_positions(text(rope_type="yarn", factor=4.0)) == 4096, "counted in already"


@pytest.mark.parametrize(
    "action",
    [
        lambda model, encoder, clip, frames: planning.plan([clip], encoder, 2, ANY),
        lambda model, encoder, clip, frames: planning.check_positions([clip], encoder, 4),
        lambda model, encoder, clip, frames: scoring.reply(
            model, encoder, clip.subtitles, frames, [QuestionPrompt("What?", None)], 4
        ),
        lambda model, encoder, clip, frames: list(
            scoring.choose(model, encoder, [(clip.subtitles, frames, [QuestionPrompt("What?", CHOICES)])])
        ),
    ],
    ids=["plan", "evaluate", "reply", "choose"],
)
def test_more_positions_than_the_base_knows_are_refused_with_the_numbers(
    tiny: tuple[Any, Encoder], action: Callable[..., Any]
) -> None:
    model, encoder = tiny
    [clip] = make_clips(1)
    frames = np.zeros((8, 64, 64, 3), dtype=np.uint8)
    action(model, encoder, clip, frames)
    few = dataclasses.replace(encoder, max_positions=len(encoder.prefix(clip.subtitles)[0]) + 3)
    said = sentence(lambda: action(model, few, clip, frames))
    assert f"knows {few.max_positions}" in said and "frames.num_frames" in said
