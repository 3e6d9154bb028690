"""Text to token ids: a clip's prefix with its video tokens, its questions, its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import (
    VideoLlavaConfig,
)

from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    # Importing PEFT takes four seconds, which those who need only the base should not wait for.
    pass
from collections.abc import Sequence
from dataclasses import dataclass

from cinetune.cinepile import prompts
from cinetune.cinepile.questions import LETTERS


def encoder_for(
    config: VideoLlavaConfig, tokenizer: Any, num_frames: int, max_subtitle_tokens: int, truncate: str = "end"
) -> Encoder:
    """The encoder of a base; `truncate` says at which end subtitles are cut to `max_subtitle_tokens`."""
    vision = config.vision_config
    # Every patch of every frame, and each frame's class token.
    num_video_tokens = num_frames * ((vision.image_size // vision.patch_size) ** 2 + 1)
    return Encoder(tokenizer, config.video_token_id, num_video_tokens, max_subtitle_tokens, truncate)


def encoder_of(params: Params, config: VideoLlavaConfig, tokenizer: Any) -> Encoder:
    """`encoder_for` with the numbers of a whole params file."""
    prompt = params.prompt
    return encoder_for(config, tokenizer, params.frames.num_frames, prompt.max_subtitle_tokens, prompt.truncate)


@dataclass(frozen=True)
class Encoder:
    """Text to token ids for one tokenizer and one number of frames.

    truncate: what subtitles beyond `max_subtitle_tokens` lose, their "middle" or their "end".
    """

    tokenizer: Any
    video_token_id: int
    num_video_tokens: int
    max_subtitle_tokens: int
    truncate: str = "end"

    def prefix(self, subtitles: str) -> tuple[list[int], int]:
        """Ids of a clip's prefix with its video tokens, and how many subtitle tokens were left out."""
        words, dropped = self._shorten(prompts.spoken(subtitles))
        return self.with_video(prompts.prefix(words)), dropped

    def with_video(self, text: str) -> list[int]:
        """Ids of a text, its start token and all, with the video's tokens in the place of its one `<video>`."""
        ids = self.tokenizer(text).input_ids
        at = ids.index(self.video_token_id)
        return [*ids[:at], *[self.video_token_id] * self.num_video_tokens, *ids[at + 1 :]]

    def suffix(self, question: str, choices: Sequence[str] | None) -> list[int]:
        """Ids of one question with its options, up to where the answer begins."""
        return self._plain(prompts.suffix(question, choices))

    def suffixes(self, asked: Sequence[tuple[str, Sequence[str] | None]]) -> list[list[int]]:
        """The same for several questions with their choices, which takes a tokenizer little longer than one."""
        return self._plain([prompts.suffix(*item) for item in asked])

    def answer(self, text: str) -> list[int]:
        """Ids of ` text` as it follows `ASSISTANT:`, with the end token: what the model is taught to say."""
        return self.answers([text])[0]

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """The same for several texts, which takes a tokenizer little longer than one."""
        return [[*ids, self.tokenizer.eos_token_id] for ids in self._after_role(texts)]

    def letters(self) -> list[int]:
        """The token of each option letter, in order. Raises InputError if a letter is not one token of its own."""
        ids = self._after_role(LETTERS)
        if any(len(letter) != 1 for letter in ids) or len({letter[0] for letter in ids}) < len(LETTERS):
            raise InputError(
                "the base model's tokenizer does not give each of the letters A to E one token of its own."
            )
        return [letter[0] for letter in ids]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def _shorten(self, words: str) -> tuple[str, int]:
        ids = self._plain(words)
        if len(ids) <= self.max_subtitle_tokens:
            return words, 0
        dropped = len(ids) - self.max_subtitle_tokens
        if self.truncate == "end":
            return self.decode(ids[: self.max_subtitle_tokens]), dropped
        head = self.max_subtitle_tokens // 2
        return f"{self.decode(ids[:head])}\n{self.decode(ids[head + dropped :])}", dropped

    def _plain(self, text: str | list[str]) -> Any:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _after_role(self, texts: Sequence[str]) -> list[list[int]]:
        if self.tokenizer.eos_token_id is None:
            raise InputError("the base model's tokenizer has no end token: no answer could be taught to end.")
        # Tokenizers treat a text's start in their own ways, so the answer is what the role's text grows by.
        spoken = ["ASSISTANT:", *(f"ASSISTANT: {text}" for text in texts)]
        role, *rows = self.tokenizer(spoken, add_special_tokens=False).input_ids
        if any(ids[: len(role)] != role for ids in rows):
            raise InputError("the base model's tokenizer joins `ASSISTANT:` with the answer that follows it.")
        return [ids[len(role) :] for ids in rows]
