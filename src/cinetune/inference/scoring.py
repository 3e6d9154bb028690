"""A clip and its questions to option probabilities and words: the one way, for evaluation and for serving.

A clip is read once and kept as a cache. Its questions are read behind it in packs: the logits behind each
question's last token give the probabilities of the options, and from there all questions of a pack are continued
together, one token each a step. Then the cache is cut back to the clip, for the next pack. The result is that of
asking each question alone (tests/inference/test_scoring.py holds it against `generate`). Where no words are wanted
nothing need be kept: `choose` reads clip and questions at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from transformers import DynamicCache

from cinetune.inference.decoding import continued
from cinetune.model.base import answer_logits
from cinetune.model.encoder import Encoder
from cinetune.model.packing import Pack, collate, no_mask, pack
from cinetune.task.description import LETTERS

Item = TypeVar("Item")


@dataclass(frozen=True)
class QuestionPrompt:
    """A question; choices are None where an answer in words is wanted."""

    question: str
    choices: tuple[str, ...] | None


@dataclass(frozen=True)
class Reply:
    """The model's words, and the option letters' shares of probability (None for an open question).

    letter_mass: the probability that the letters together have of being the next token, 0 to 1; NaN if unknown.
    prompt_tokens, word_tokens: how many were read for this question, the clip's included, and said; 0 if not counted.
    """

    raw: str
    probabilities: tuple[float, ...] | None
    letter_mass: float = math.nan
    prompt_tokens: int = 0
    word_tokens: int = 0

    @property
    def letter(self) -> str | None:
        """The most probable option, whatever the words say; the first of equals."""
        return None if self.probabilities is None else LETTERS[int(np.argmax(self.probabilities))]


@dataclass(frozen=True, eq=False)
class Reading:
    """A clip as the model has read it: its token ids and the cache of their keys and values."""

    ids: list[int]
    cache: DynamicCache

    def copy(self) -> Reading:
        """One to answer with while this one is kept: a cache grows with what is asked, and is left so by an error."""
        return Reading(self.ids, DynamicCache([(layer.keys, layer.values) for layer in self.cache.layers]))

    @property
    def num_bytes(self) -> int:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)


def read(model: torch.nn.Module, encoder: Encoder, subtitles: str, frames: np.ndarray) -> Reading:
    """Read what all questions about a clip share; frames: uint8 [num_frames, size, size, 3]."""
    return read_prefix(model, encoder, encoder.prefix(subtitles)[0], frames)


@torch.inference_mode()
def read_prefix(model: torch.nn.Module, encoder: Encoder, ids: list[int], frames: np.ndarray) -> Reading:
    """The same of the ids of a prefix."""
    # Where weights are quantised the embeddings still have the type and place that the model computes in.
    weight = model.get_input_embeddings().weight
    batch = collate([pack(ids, [], None, frames)], encoder.tokenizer.pad_token_id or 0, weight.dtype, weight.device)
    inputs = {name: value for name, value in batch.items() if name not in ("slots", "targets")}
    cache = DynamicCache()
    model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Reading(ids, cache)


def _always(number: int) -> bool:
    return True


@torch.inference_mode()
def answer(
    model: torch.nn.Module,
    encoder: Encoder,
    reading: Reading,
    asked: Sequence[QuestionPrompt],
    max_new_tokens: int | Sequence[int],
    is_wanted: Callable[[int], bool] = _always,
) -> list[Reply]:
    """Answers to one pack of questions behind a clip that was read, which can be used again, but not after an error.

    max_new_tokens: for all, or of each question; is_wanted: asked before every further token of a question, whose
    words end where it says no.
    """
    if not asked:
        return []
    weight = model.get_input_embeddings().weight
    start = len(reading.ids)
    suffixes = encoder.suffixes([(item.question, item.choices) for item in asked])
    limits = [max_new_tokens] * len(asked) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    furthest = max(len(suffix) + limit for suffix, limit in zip(suffixes, limits, strict=True))
    encoder.check_positions(start + furthest, "a question with its answer")
    questions = pack(reading.ids, suffixes, None, None)
    segments = torch.from_numpy(questions.segments).to(weight.device)
    positions = torch.from_numpy(questions.position_ids).to(weight.device)
    slots = torch.from_numpy(questions.slots).to(weight.device)
    logits = (
        model(
            input_ids=torch.from_numpy(questions.input_ids[start:])[None].to(weight.device),
            position_ids=positions[None, start:],
            attention_mask=no_mask(weight.device),
            questions=questions.layout(weight.device),
            past_key_values=reading.cache,
            use_cache=True,
            logits_to_keep=slots - start,
        )
        .logits[0]
        .float()
    )
    end = encoder.tokenizer.eos_token_id
    words = continued(model, end, reading.cache, segments, positions[slots], logits, limits, is_wanted)
    # A negative number is how many are taken off the end; what is left is the clip.
    reading.cache.crop(start - reading.cache.get_seq_length())
    replies = _replies(encoder, asked, logits, words)
    return [
        replace(reply, prompt_tokens=start + len(suffix), word_tokens=len(ids))
        for reply, suffix, ids in zip(replies, suffixes, words, strict=True)
    ]


def _replies(
    encoder: Encoder, asked: Sequence[QuestionPrompt], logits: torch.Tensor, words: Sequence[Sequence[int]]
) -> list[Reply]:
    """logits [Q, vocabulary]: behind each question's last token; words: ids of each answer."""
    counts = [len(item.choices or ()) for item in asked]
    letters = encoder.letters(max(counts))
    probabilities = _shares(logits, letters, counts).tolist()
    # Letters that a question does not have count for nothing.
    masses = torch.softmax(logits, dim=-1)[:, letters].masked_fill(~_has(letters, counts, logits.device), 0.0)
    return [
        Reply(encoder.decode(ids), tuple(shares[:count]), mass) if count else Reply(encoder.decode(ids), None)
        for ids, shares, mass, count in zip(words, probabilities, masses.sum(dim=-1).tolist(), counts, strict=True)
    ]


def _shares(logits: torch.Tensor, letters: Sequence[int], counts: Sequence[int]) -> torch.Tensor:
    """Shares of probability [Q, letters] of logits [Q, vocabulary], among as many letters as each question has."""
    own = logits[:, letters].float()
    return torch.softmax(own.masked_fill(~_has(letters, counts, own.device), -torch.inf), dim=-1)


def _has(letters: Sequence[int], counts: Sequence[int], device: torch.device) -> torch.Tensor:
    """Which letters each question has: booleans [Q, letters]; an open question, which has none, is shown them all."""
    owned = torch.tensor([count or len(letters) for count in counts], device=device)
    return torch.arange(len(letters), device=device) < owned[:, None]


def reply(
    model: torch.nn.Module,
    encoder: Encoder,
    subtitles: str,
    frames: np.ndarray,
    asked: Sequence[QuestionPrompt],
    max_new_tokens: int,
) -> list[Reply]:
    """Answers to questions about one clip, in their order; greedy, until the end token or `max_new_tokens`.

    model: in evaluation mode, with sdpa attention; frames: uint8 [num_frames, size, size, 3].
    """
    if not asked:
        return []
    return answer(model, encoder, read(model, encoder, subtitles, frames), asked, max_new_tokens)


@torch.inference_mode()
def choose(
    model: torch.nn.Module, encoder: Encoder, clips: Iterable[tuple[str, np.ndarray, Sequence[QuestionPrompt]]]
) -> Iterator[list[Reply]]:
    """Replies without words to questions with options, clip after clip: subtitles, frames as for `reply`, questions.

    While a GPU is at one clip the next is taken from `clips` and encoded in a thread, and the GPU has got it before the
    replies to the one before are waited for.
    """
    weight = model.get_input_embeddings().weight
    # A tokenizer may not be used by two threads at once: from here on it is the other's.
    padding = encoder.tokenizer.pad_token_id or 0

    def packs() -> Iterator[tuple[Pack, list[int], list[int]]]:
        for subtitles, frames, asked in clips:
            suffixes = encoder.suffixes([(item.question, item.choices) for item in asked])
            item = pack(encoder.prefix(subtitles)[0], suffixes, None, frames)
            encoder.check_positions(int(item.position_ids.max()) + 1, "a question behind its clip")
            counts = [len(item.choices or ()) for item in asked]
            yield item, counts, encoder.letters(max(counts))

    waiting: list[tuple[torch.Tensor, list[int]]] = []
    for item, counts, letters in _ahead(packs()):
        logits = answer_logits(model, collate([item], padding, weight.dtype, weight.device))
        waiting.append((_shares(logits, letters, counts), counts))
        if len(waiting) > 1:
            yield _choices(*waiting.pop(0))
    for shares, counts in waiting:
        yield _choices(shares, counts)


def _choices(probabilities: torch.Tensor, counts: Sequence[int]) -> list[Reply]:
    shares = zip(probabilities.tolist(), counts, strict=True)
    return [Reply("", tuple(of_letters[:count]) if count else None) for of_letters, count in shares]


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same, each made in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, items, None)
            yield item
