"""A clip's prefix and a question's suffix as text: one template for training, evaluation and serving.

The order is that of the published protocol: instruction, form of the answer, subtitles, video, question, options,
reminder. Everything that does not depend on the question comes first, so that a clip's questions share it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cinetune.files import text_digest
from cinetune.task.questions import LETTERS

VIDEO = "<video>"
SUBTITLE_MARK = "<subtitle>"
ROLE = "ASSISTANT:"

INSTRUCTION = (
    "USER: Below are the subtitles and the frames of a movie scene, then a question about it. "
    "Where five options are given, reply with the letter of the right one and with nothing else."
)
REMINDER = "Reply with one letter."
OPEN_REMINDER = "Reply in a few words."

# Text that would change the prompt's own structure: the roles, and the tokens that tokenizers give a meaning.
_ROLES = re.compile(r"\b(USER|ASSISTANT|SYSTEM)(\s*):", re.IGNORECASE)
_TOKENS = re.compile(r"<(/?)(video|image|s|unk|pad|bos|eos|mask|\|[^<>]{0,40}\|)>", re.IGNORECASE)


def neutralise(text: str) -> str:
    """`text` without anything that a tokenizer or the template would read as a marker; words stay readable."""
    # Half of a character outside Unicode's first plane, which JSON can hold, is refused by tokenizers.
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = _TOKENS.sub(r"(\1\2)", text.replace("\x00", " "))
    return _ROLES.sub(r"\1\2 -", text)


def spoken(subtitles: str) -> str:
    """The words of CinePile's subtitles, one line each, without their `<subtitle>` marks."""
    lines = (line.replace(SUBTITLE_MARK, " ").strip() for line in subtitles.splitlines())
    return neutralise("\n".join(line for line in lines if line))


def prefix(words: str) -> str:
    """What all questions of a clip share; `words` comes from `spoken`, perhaps shortened. Holds one `<video>`."""
    return f"{INSTRUCTION}\nSubtitles:\n{words}\nFrames: {VIDEO}\n"


def seam() -> str:
    """What stands between the video and a question."""
    return prefix("").partition(VIDEO)[2]


def suffix(question: str, choices: Sequence[str] | None) -> str:
    """One question behind the prefix, up to the place where the model answers; None asks for words."""
    line = f"Question: {neutralise(question.strip())}\n"
    if choices is None:
        return f"{line}{OPEN_REMINDER} {ROLE}"
    options = "".join(
        f"- {letter}) {neutralise(choice.strip())}\n" for letter, choice in zip(LETTERS, choices, strict=True)
    )
    return f"{line}{options}{REMINDER} {ROLE}"


def template() -> dict[str, str]:
    """The template as data, to be saved beside whatever was made with it."""
    return {
        "prefix": prefix("{subtitles}"),
        "suffix": suffix("{question}", [f"{{option {letter}}}" for letter in LETTERS]),
        "open_suffix": suffix("{question}", None),
    }


def template_hash() -> str:
    """Changes when, and only when, the template does."""
    return text_digest("\0".join(template().values()))[:16]
