"""A clip's prefix and a question's suffix as text: one template for training, evaluation and serving.

The order is that of the published protocol: instruction, form of the answer, subtitles, video, question, options,
reminder. Everything that does not depend on the question comes first, so that a clip's questions share it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cinetune.errors import InputError
from cinetune.files import text_digest
from cinetune.task import description
from cinetune.task.description import CINEPILE, LETTERS, Task
from cinetune.task.template import ASKING as ASKING
from cinetune.task.template import ROLE as ROLE
from cinetune.task.template import VIDEO as VIDEO
from cinetune.task.template import neutralise as neutralise

SUBTITLE_MARK = "<subtitle>"
REMINDER = "Reply with one letter."
OPEN_REMINDER = "Reply in a few words."


def spoken(subtitles: str) -> str:
    """The words of subtitles, one line each, without CinePile's `<subtitle>` marks."""
    lines = (line.replace(SUBTITLE_MARK, " ").strip() for line in subtitles.splitlines())
    return neutralise("\n".join(line for line in lines if line))


def prefix(words: str, task: Task = CINEPILE) -> str:
    """What all questions of a clip share; `words` comes from `spoken`, perhaps shortened. Holds one `<video>`."""
    if task.prompt:
        return task.prompt.fill_prefix(words)
    subtitles = f"Subtitles:\n{words}\n" if task.subtitles else ""
    return f"{ASKING} {task.told}\n{subtitles}Frames: {VIDEO}\n"


def seam(task: Task = CINEPILE) -> str:
    """What stands between a clip, its video or its subtitles, and a question."""
    return re.split(rf"{VIDEO}|\{{subtitles\}}", template(task)["prefix"])[-1]


def suffix(question: str, choices: Sequence[str] | None, task: Task = CINEPILE) -> str:
    """One question behind the prefix, up to the place where the model answers; None asks for words."""
    if task.prompt:
        options = choices and [neutralise(choice.strip()) for choice in choices]
        return task.prompt.fill_suffix(neutralise(question.strip()), options)
    line = f"Question: {neutralise(question.strip())}\n"
    if choices is None:
        return f"{line}{OPEN_REMINDER} {ROLE}"
    options = "".join(
        f"- {letter}) {neutralise(choice.strip())}\n" for letter, choice in zip(LETTERS, choices, strict=False)
    )
    return f"{line}{options}{REMINDER} {ROLE}"


def template(task: Task = CINEPILE) -> dict[str, str]:
    """The template as data, to be saved beside whatever was made with it."""
    if task.prompt:
        return task.prompt.model_dump()
    return {
        "prefix": prefix("{subtitles}", task),
        "suffix": suffix("{question}", [f"{{option {letter}}}" for letter in task.letters]),
        "open_suffix": suffix("{question}", None),
    }


def template_hash(task: Task = CINEPILE) -> str:
    """Changes when, and only when, the template does."""
    return text_digest("\0".join(template(task).values()))[:16]


def read(path: Path) -> dict[str, Any]:
    """What a prompt.json holds, for `worded`. Raises InputError where it cannot be read."""
    if not path.is_file():
        raise InputError(f"there is no prompt template {str(path)!r}: name a prompt.json, as adapters carry it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    # What is not UTF-8 and what is not JSON are both a ValueError.
    except (OSError, ValueError, RecursionError):
        raise InputError(f"prompt template {str(path)!r} is not JSON in UTF-8: save it so.") from None
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} holds no prompt template: write prefix, suffix and open_suffix.")
    return content


def worded(task: Task, content: Mapping[str, Any], origin: str) -> Task:
    """The task in the words of a template, as prompt.json holds it; `origin` is where that stands.

    Raises InputError for what is no template, or has no place for all options of the task.
    """
    if content == template(task):
        return task
    return description.read_task({**task.to_dict(), "prompt": content}, origin)
