"""A prompt's words as data, where they are not this project's own, and the markers that no other text may hold.

An adapter carries them as prompt.json, an own task as `prompt` in its task.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, StrictStr, model_validator

VIDEO = "<video>"
ASKING, ROLE = "USER:", "ASSISTANT:"
LETTERS = "ABCDEFGHIJ"

# Text that would change the prompt's own structure: the roles, and the tokens that tokenizers give a meaning.
_ROLES = re.compile(r"\b(USER|ASSISTANT|SYSTEM)(\s*):", re.IGNORECASE)
_TOKENS = re.compile(r"<(/?)(video|image|s|unk|pad|bos|eos|mask|\|[^<>]{0,40}\|)>", re.IGNORECASE)
SUBTITLES, QUESTION = "subtitles", "question"
_PLACE = re.compile(rf"\{{({SUBTITLES}|{QUESTION}|option [{LETTERS}])\}}")
# Other words in braces are most likely a place that was misspelt.
_WORD = re.compile(r"\{([A-Za-z_ ]+)\}")


def neutralise(text: str) -> str:
    """`text` without anything that a tokenizer or the template would read as a marker; words stay readable."""
    # Half of a character outside Unicode's first plane, which JSON can hold, is refused by tokenizers.
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = _TOKENS.sub(r"(\1\2)", text.replace("\x00", " "))
    return _ROLES.sub(r"\1\2 -", text)


class Template(BaseModel):
    """prefix: what a clip's questions share, up to the first of them; suffix: a question with options.

    Places: one `<video>` and at most one `{subtitles}` in the prefix, `{question}` and `{option A}`, `{option B}`
    and so on in the suffix, `{question}` in open_suffix.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: StrictStr
    suffix: StrictStr
    open_suffix: StrictStr

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_places()
        endings = (f" {ROLE}", f"\n{ROLE}")
        if not self.prefix.startswith(f"{ASKING} "):
            raise ValueError(f"prefix must begin with {f'{ASKING} '!r}")
        if not self.prefix.endswith(("\n", VIDEO)):
            raise ValueError(f"prefix must end with {VIDEO} or a line break: what follows belongs to the suffixes")
        if not self.suffix.endswith(endings) or not self.open_suffix.endswith(self.suffix[-len(endings[0]) :]):
            raise ValueError(f"suffix and open_suffix must both end with {endings[0]!r} or both with {endings[1]!r}")
        asking = self.prefix.removeprefix(ASKING).replace(VIDEO, "")
        for name, text in {
            "prefix": asking,
            "suffix": self.suffix.removesuffix(ROLE),
            "open_suffix": self.open_suffix.removesuffix(ROLE),
        }.items():
            if neutralise(text) != text:
                raise ValueError(f"{name} must hold no role but its own and no token of a tokenizer")
        return self

    def _check_places(self) -> None:
        texts = self.model_dump()
        counts = [text.count(VIDEO) for text in texts.values()]
        if counts != [1, 0, 0]:
            raise ValueError(f"must have one place for the video ({VIDEO}), in prefix, and has {sum(counts)} in all")
        for name, text in texts.items():
            unknown = next((word for word in _WORD.findall(text) if not _PLACE.fullmatch(f"{{{word}}}")), None)
            if unknown is not None:
                raise ValueError(f"{name} has the place {{{unknown}}}, which is not known")
        if _places(self.prefix) not in ([], [SUBTITLES]):
            raise ValueError(f"prefix may have one place, {{{SUBTITLES}}}: a clip's questions share it")
        if _places(self.open_suffix) != [QUESTION]:
            raise ValueError(f"open_suffix must have one place, {{{QUESTION}}}")
        places = _places(self.suffix)
        if len(places) < 3 or places != [QUESTION, *(f"option {letter}" for letter in LETTERS)][: len(places)]:
            raise ValueError(
                f"suffix must have the places {{{QUESTION}}}, {{option A}}, {{option B}} and so on, each once and in "
                "this order"
            )

    @property
    def num_options(self) -> int:
        """How many options a question can have."""
        return len(_places(self.suffix)) - 1

    def fill_prefix(self, words: str) -> str:
        return _fill(self.prefix, [words])

    def fill_suffix(self, question: str, choices: Sequence[str] | None) -> str:
        """What stands before an option goes with it, so that a question may have fewer than there are places."""
        return _fill(self.open_suffix if choices is None else self.suffix, [question, *(choices or ())])


def _places(text: str) -> list[str]:
    return _PLACE.findall(text)


def _fill(text: str, values: Sequence[str]) -> str:
    """Values in the places of a text, and behind them how it ends; what values hold is no place."""
    *before, ending = _PLACE.split(text)[::2]
    return "".join(f"{words}{value}" for words, value in zip(before, values, strict=False)) + ending
