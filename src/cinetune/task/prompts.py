"""A clip's prefix and a question's suffix as text: one template for training, evaluation and serving.

The order is that of the published protocol: instruction, form of the answer, subtitles, video, question, options,
reminder. Everything that does not depend on the question comes first, so that a clip's questions share it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cinetune.files import text_digest
from cinetune.task.description import CINEPILE, LETTERS, Task

VIDEO = "<video>"
SUBTITLE_MARK = "<subtitle>"
ROLE = "ASSISTANT:"

ASKING = "USER:"
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
    """The words of subtitles, one line each, without CinePile's `<subtitle>` marks."""
    lines = (line.replace(SUBTITLE_MARK, " ").strip() for line in subtitles.splitlines())
    return neutralise("\n".join(line for line in lines if line))


def prefix(words: str, task: Task = CINEPILE) -> str:
    """What all questions of a clip share; `words` comes from `spoken`, perhaps shortened. Holds one `<video>`."""
    subtitles = f"Subtitles:\n{words}\n" if task.subtitles else ""
    return f"{ASKING} {task.told}\n{subtitles}Frames: {VIDEO}\n"


def seam() -> str:
    """What stands between the video and a question."""
    return prefix("").partition(VIDEO)[2]


def suffix(question: str, choices: Sequence[str] | None) -> str:
    """One question behind the prefix, up to the place where the model answers; None asks for words."""
    line = f"Question: {neutralise(question.strip())}\n"
    if choices is None:
        return f"{line}{OPEN_REMINDER} {ROLE}"
    options = "".join(
        f"- {letter}) {neutralise(choice.strip())}\n" for letter, choice in zip(LETTERS, choices, strict=False)
    )
    return f"{line}{options}{REMINDER} {ROLE}"


def template(task: Task = CINEPILE) -> dict[str, str]:
    """The template as data, to be saved beside whatever was made with it."""
    return {
        "prefix": prefix("{subtitles}", task),
        "suffix": suffix("{question}", [f"{{option {letter}}}" for letter in task.letters]),
        "open_suffix": suffix("{question}", None),
    }


def template_hash(task: Task = CINEPILE) -> str:
    """Changes when, and only when, the template does."""
    return text_digest("\0".join(template(task).values()))[:16]
