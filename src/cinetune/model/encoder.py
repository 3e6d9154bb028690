"""Text to token ids: a clip's prefix with its video tokens, its questions, its answers.

The ids are those of the prompt written out as one text: a tokenizer may put a space before the first word of what it
is given, so no part is tokenised without what stands before it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import VideoLlavaConfig

from cinetune.errors import InputError
from cinetune.params import Params
from cinetune.task import prompts
from cinetune.task.description import CINEPILE, LETTERS, Task

# Subtitles are cut between words, or inside one that would cost more characters than this.
MAX_WORD_CHARS = 40
# Kinds of rotary embedding whose base knows its positions times their factor; others count it in already.
STRETCHED = ("linear", "dynamic")
JOINER = "\u200d"


def encoder_for(
    config: VideoLlavaConfig,
    tokenizer: Any,
    num_frames: int,
    max_subtitle_tokens: int,
    truncate: str = "end",
    task: Task = CINEPILE,
) -> Encoder:
    """The encoder of a base; `truncate` says at which end subtitles are cut to `max_subtitle_tokens`.

    Raises InputError where the tokenizer reads a marker in the prompt's own words.
    """
    vision = config.vision_config
    # Every patch of every frame, and each frame's class token.
    num_video_tokens = num_frames * ((vision.image_size // vision.patch_size) ** 2 + 1)
    positions = max_positions(config.text_config)
    encoder = Encoder(
        tokenizer, config.video_token_id, num_video_tokens, max_subtitle_tokens, truncate, positions, task
    )
    encoder.check_words()
    return encoder


def encoder_of(params: Params, config: VideoLlavaConfig, tokenizer: Any, task: Task) -> Encoder:
    """`encoder_for` with the numbers of a whole params file."""
    prompt = params.prompt
    return encoder_for(config, tokenizer, params.frames.num_frames, prompt.max_subtitle_tokens, prompt.truncate, task)


def max_positions(text: Any) -> int:
    """How many tokens in a row a language model knows, by its configuration."""
    rope = getattr(text, "rope_parameters", None) or {}
    factor = rope.get("factor") if rope.get("rope_type") in STRETCHED else None
    return int(text.max_position_embeddings * (factor or 1))


@dataclass(frozen=True)
class Encoder:
    """Text to token ids for one tokenizer and one number of frames.

    truncate: what subtitles beyond `max_subtitle_tokens` lose, their "middle" or their "end"; max_positions: how many
    tokens in a row the base knows; task: whose instruction stands in the prefix.
    """

    tokenizer: Any
    video_token_id: int
    num_video_tokens: int
    max_subtitle_tokens: int
    truncate: str = "end"
    max_positions: int = sys.maxsize
    task: Task = CINEPILE

    def prefix(self, subtitles: str) -> tuple[list[int], int]:
        """Ids of a clip's prefix with its video tokens, and how many subtitle tokens were left out."""
        words, dropped = self.shorten(self.safe(prompts.spoken(subtitles))) if self.task.subtitles else ("", 0)
        return self.with_video(prompts.prefix(words, self.task)), dropped

    def with_video(self, text: str) -> list[int]:
        """Ids of a text, its start token and all, with the video's tokens in the place of its one `<video>`."""
        ids = self.tokenizer(text).input_ids
        if ids.count(self.video_token_id) != 1:
            raise InputError(
                f"the base model's tokenizer makes {ids.count(self.video_token_id)} video tokens "
                f"(id {self.video_token_id}) of a prompt with one {prompts.VIDEO}: its files do not belong together."
            )
        at = ids.index(self.video_token_id)
        return [*ids[:at], *[self.video_token_id] * self.num_video_tokens, *ids[at + 1 :]]

    def suffix(self, question: str, choices: Sequence[str] | None) -> list[int]:
        """Ids of one question with its options, up to where the answer begins."""
        return self.suffixes([(question, choices)])[0]

    def suffixes(self, asked: Sequence[tuple[str, Sequence[str] | None]]) -> list[list[int]]:
        """The same for several questions with their choices, which takes a tokenizer little longer than one."""
        texts = [
            prompts.suffix(self.safe(question), choices and [self.safe(choice) for choice in choices], self.task)
            for question, choices in asked
        ]
        # A tokenizer takes a text apart at the video's token, so what stands before that changes nothing behind it.
        return self._grown(f"{prompts.VIDEO}{prompts.seam(self.task)}", texts)

    def answer(self, text: str) -> list[int]:
        """Ids of ` text` as it follows `ASSISTANT:`, with the end token: what the model is taught to say."""
        return self.answers([text])[0]

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """The same for several texts, which takes a tokenizer little longer than one."""
        if self.tokenizer.eos_token_id is None:
            raise InputError("the base model's tokenizer has no end token: no answer could be taught to end.")
        return [[*ids, self.tokenizer.eos_token_id] for ids in self._after_role(texts)]

    def letters(self, count: int | None = None) -> list[int]:
        """The token of each option letter, in order: of the first `count`, or of all that the task may have.

        Raises InputError if a letter is not one token of its own.
        """
        wanted = self.task.letters if count is None else LETTERS[:count]
        ids = self._after_role(wanted)
        if any(len(letter) != 1 for letter in ids) or len({letter[0] for letter in ids}) < len(wanted):
            told = f"{wanted[0]} to {wanted[-1]}"
            raise InputError(
                f"the base model's tokenizer does not give each of the letters {told} one token of its own."
            )
        return [letter[0] for letter in ids]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def check_positions(self, tokens: int, what: str) -> None:
        """Raises InputError unless the base knows so many positions."""
        if tokens > self.max_positions:
            raise InputError(
                f"{what} takes {tokens} positions ({self.num_video_tokens} of them the video's), but the base model "
                f"knows {self.max_positions}: lower frames.num_frames or prompt.max_subtitle_tokens."
            )

    def check_words(self) -> None:
        """Raises InputError where the template's own words hold what this tokenizer reads as a marker."""
        for name, text in prompts.template(self.task).items():
            if self._markers and (found := self._markers.search(text.replace(prompts.VIDEO, ""))):
                raise InputError(
                    f"the prompt's {name} holds {found[0]!r}, to which the base model's tokenizer gives a meaning of "
                    "its own: write it without."
                )

    def safe(self, text: str) -> str:
        """A user's text without anything that this tokenizer or the template would read as a marker."""
        text = prompts.neutralise(text)
        while self._markers and (found := self._markers.search(text)):
            marker = found[0]
            text = text.replace(marker, f"{marker[0]} {marker[1:]}" if len(marker) > 1 else " ")
        return text

    @cached_property
    def _markers(self) -> re.Pattern[str] | None:
        """The tokens to which this tokenizer gives a meaning of their own."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        special = {token.content for token in added if token.special and token.content.strip()}
        longest_first = sorted(special, key=lambda token: (-len(token), token))
        return re.compile("|".join(map(re.escape, longest_first))) if special else None

    def shorten(self, words: str) -> tuple[str, int]:
        """Words of at most `max_subtitle_tokens`, cut between words, and how many tokens were left out."""
        ids = self._plain([words])[0]
        kept, count, room = words, len(ids), self.max_subtitle_tokens
        # What is left may be read as other tokens than before.
        while count > self.max_subtitle_tokens:
            kept = self.safe(self._cut(words, ids, room)) if room > 0 else ""
            count = len(self._plain([kept])[0]) if kept else 0
            room -= max(1, count - self.max_subtitle_tokens)
        return kept, len(ids) - count

    def _cut(self, words: str, ids: Sequence[int], room: int) -> str:
        """What `room` of its tokens say, without words that they say in part."""
        if self.truncate == "end":
            return words[: _last_border(words, len(self.decode(ids[:room])))].rstrip()
        head, tail = room // 2, (room - 1) // 2
        first = words[: _last_border(words, len(self.decode(ids[:head])))]
        # One of the tokens is the line's end between the two.
        last = words[_first_border(words, len(words) - len(self.decode(ids[len(ids) - tail :]))) :]
        return f"{first.rstrip()}\n{last.lstrip()}"

    def _plain(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False).input_ids
        return ids

    def _after_role(self, texts: Sequence[str]) -> list[list[int]]:
        return self._grown(prompts.ROLE, [f" {self.safe(text)}" for text in texts])

    def _grown(self, start: str, texts: Sequence[str]) -> list[list[int]]:
        """Ids by which a start grows with each of these texts behind it."""
        first, *rows = self._plain([start, *(start + text for text in texts)])
        joined = next((text for text, ids in zip(texts, rows, strict=True) if ids[: len(first)] != first), None)
        if joined is not None:
            raise InputError(
                f"the base model's tokenizer joins {start.strip()!r} with what follows it ({joined.strip()[:40]!r}): "
                "its questions and answers cannot be told apart."
            )
        return [ids[len(first) :] for ids in rows]


def _last_border(text: str, at: int) -> int:
    """The last place up to `at` where no word is cut; within a very long word, where no character is."""
    at = min(at, len(text))
    for place in range(at, max(0, at - MAX_WORD_CHARS), -1):
        if place == len(text) or text[place].isspace() or text[place - 1].isspace():
            return place
    while at > 0 and _is_inside(text, at):
        at -= 1
    return at


def _first_border(text: str, at: int) -> int:
    """The first place from `at` on where no word is cut; within a very long word, where no character is."""
    at = max(at, 0)
    for place in range(at, min(len(text), at + MAX_WORD_CHARS)):
        if place == 0 or text[place].isspace() or text[place - 1].isspace():
            return place
    while at < len(text) and _is_inside(text, at):
        at += 1
    return at


def _is_inside(text: str, at: int) -> bool:
    """Would a cut there part a character from its accent, its variant or its skin's colour?"""
    is_mark = unicodedata.category(text[at]) in ("Mn", "Me", "Mc") or "\U0001f3fb" <= text[at] <= "\U0001f3ff"
    return is_mark or JOINER in text[at - 1 : at + 1]
