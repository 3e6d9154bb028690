"""What a task is, as data: its options, categories and groups, its prompt and its columns.

`<data.root>/task.yaml` holds it. A folder without one holds CinePile's questions, whose description stands beside this
module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cinetune.errors import InputError
from cinetune.files import write_whole
from cinetune.task.template import LETTERS as LETTERS
from cinetune.task.template import Template

FILE = "task.yaml"
MIN_CHOICES, MAX_CHOICES = 2, len(LETTERS)
# More would make tables that nobody can read.
MAX_CATEGORIES = 30
# What a file of questions may hold, and what it must hold where no description maps names of its own.
PLAIN = ("clip_id", "question", "choices", "answer", "answer_text", "category", "group", "subtitles", "url")
PLAIN_REQUIRED = PLAIN[:4]
# Those that only a description maps: `year` tells groups of one name apart, `title` and `scene` are never read.
MAPPED = (*PLAIN, "year", "genres", "hard_split", "visual_reliance", "title", "scene")
# A group's word names a column of predictions, and stands beside "clips".
TAKEN = frozenset(
    ("clip", "clips", "question_id", "clip_id", "year", "genres", "url", "category", "hard_split", "visual_reliance",
     "question", "rotation", "gold", "raw", "strict", "lenient", "abstained", "logit", "letter_mass", "status",
     "reason", "question_digest", "num_choices", "words")
)  # fmt: skip
WANTED = {
    "string_type": "text", "int_type": "a whole number", "bool_type": "true or false", "dict_type": "a mapping",
    "model_type": "a mapping",
}  # fmt: skip
REPLY = "Where options are given, reply with the letter of the right one and with nothing else."
INSTRUCTION = f"Below are the subtitles and the frames of a video, then a question about it. {REPLY}"
SILENT_INSTRUCTION = f"Below are the frames of a video, then a question about it. {REPLY}"


class Published(BaseModel):
    """What others have published about a task: a file of results beside this module, and the size of its data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: StrictStr
    training_questions: StrictInt
    questions_per_clip: StrictInt


class Task(BaseModel):
    """`group`: the word for what is never split; categories: name by short name, in the order of tables.

    open_questions: may rows have no options, and an answer in words? columns: the files' names by ours; empty for the
    plain ones, of which most may be missing. prompt: all of its words, in the place of ours. `subject` and `language`
    are for the model card; `terms` are to be accepted before an adapter is registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: StrictStr = ""
    group: Annotated[StrictStr, Field(pattern=r"^[a-z][a-z_]{0,29}$")] = "group"
    min_choices: Annotated[StrictInt, Field(ge=MIN_CHOICES, le=MAX_CHOICES)] = MIN_CHOICES
    max_choices: Annotated[StrictInt, Field(ge=MIN_CHOICES, le=MAX_CHOICES)] = MAX_CHOICES
    categories: Annotated[dict[StrictStr, StrictStr], Field(max_length=MAX_CATEGORIES)] = {}
    open_questions: StrictBool = False
    subtitles: StrictBool = True
    instruction: StrictStr = ""
    prompt: Template | None = None
    subject: StrictStr = "videos"
    language: StrictStr = ""
    columns: dict[StrictStr, StrictStr] = {}
    licence: StrictStr = ""
    terms: StrictStr = ""
    published: Published | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.min_choices > self.max_choices:
            raise ValueError(f"min_choices is {self.min_choices}, above max_choices ({self.max_choices})")
        if self.prompt and self.prompt.num_options < self.max_choices:
            raise ValueError(f"prompt has places for {self.prompt.num_options} options, of {self.max_choices}")
        if self.group in TAKEN:
            raise ValueError(f"group must not be {self.group!r}, which names something else")
        for short, full in self.categories.items():
            if not re.fullmatch(r"[a-z0-9_]{1,40}", short):
                raise ValueError(f"the short name {short!r} of a category must be small letters, digits and _")
            if not full.strip():
                raise ValueError(f"category {short!r} has no name")
        if len(set(self.categories.values())) < len(self.categories):
            raise ValueError("two categories have the same name")
        unknown = [name for name in self.columns if name not in MAPPED]
        if unknown:
            raise ValueError(f"columns maps {unknown[0]!r}: choose from {', '.join(MAPPED)}")
        lacking = [name for name in PLAIN_REQUIRED if self.columns and name not in self.columns]
        if lacking:
            raise ValueError(f"columns does not map {lacking[0]!r}")
        return self

    @property
    def letters(self) -> str:
        """Those of a question with as many options as there can be."""
        return LETTERS[: self.max_choices]

    @property
    def is_fixed(self) -> bool:
        """Has every question the same number of options?"""
        return self.min_choices == self.max_choices

    @property
    def counts_choices(self) -> bool:
        """Must each question's number of options be told?"""
        return self.open_questions or not self.is_fixed

    @property
    def counted(self) -> str:
        """How many options a question has, in words."""
        return str(self.max_choices) if self.is_fixed else f"{self.min_choices} to {self.max_choices}"

    @property
    def groups(self) -> str:
        """The word for several groups."""
        if self.group.endswith("s"):
            return self.group
        return re.sub(r"(?<=[^aeiou])y\Z", "ie", self.group) + "s"

    @property
    def titles(self) -> dict[str, str]:
        """Category names in one line, by short name."""
        return {short: " ".join(full.split()) for short, full in self.categories.items()}

    @cached_property
    def shorts(self) -> dict[str, str]:
        """Short names of categories by their names in the data."""
        return {full: short for short, full in self.categories.items()}

    @property
    def told(self) -> str:
        """The instruction of the prompt."""
        return self.instruction or (INSTRUCTION if self.subtitles else SILENT_INSTRUCTION)

    @cached_property
    def names(self) -> dict[str, str]:
        """What the files of questions call the columns that this task has, by our names."""
        return self.columns or {name: name for name in PLAIN}

    def column(self, name: str) -> str:
        """What the files of questions call it; empty for what this task does not have."""
        return self.names.get(name, "")

    def needs(self, name: str) -> bool:
        """Must each row have a value in this column?"""
        return name in (self.columns or PLAIN_REQUIRED)

    def to_dict(self) -> dict[str, Any]:
        """What differs from a task without a description, to be saved beside what was made of it."""
        return self.model_dump(mode="json", exclude_defaults=True)


def read_task(content: Any, origin: str) -> Task:
    """Raises InputError for what describes no task; `origin` is where it stands."""
    if not isinstance(content, Mapping):
        raise InputError(f"{origin} holds no description of a task: write group: camera, max_choices: 4 and so on.")
    try:
        return Task.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = (Template if place.startswith("prompt.") else Task).model_fields
            reason = f"is not known: choose from {', '.join(known)}"
        elif first["type"] == "missing":
            reason = "is missing"
        elif place and first["type"] != "value_error":
            reason = f"must be {_wanted(first)}, got {first['input']!r}"
        raise InputError(f"{origin}: {place}{' ' if place else ''}{reason}.") from None


def _wanted(error: ErrorDetails) -> str:
    """What a value must be, in words, by pydantic's error."""
    kind, limits = error["type"], error.get("ctx", {})
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"from {MIN_CHOICES} to {MAX_CHOICES}"
    if kind == "too_long":
        return f"at most {limits['max_length']}"
    if kind == "string_pattern_mismatch":
        return "one word in small letters"
    return WANTED.get(kind, error["msg"].removeprefix("Input should be ").lower())


def _read(text: str, origin: str) -> Task:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{origin} is not YAML: {' '.join(str(error).split())}.") from None
    return read_task({} if content is None else content, origin)


def _packaged() -> Task:
    return _read(
        resources.files("cinetune.task").joinpath("cinepile.yaml").read_text(encoding="utf-8"), "cinepile.yaml"
    )


CINEPILE = _packaged()


def of_folder(root: str | Path) -> Task:
    """The task of a folder of questions. Raises InputError where its description cannot be used."""
    path = Path(root) / FILE
    if not path.is_file():
        return CINEPILE
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{str(path)!r} cannot be read: save it as UTF-8.") from None
    return _read(text, str(path))


def saved(content: Mapping[str, Any] | None) -> Task:
    """The task that was saved beside what was made of it; what was made before there were others is CinePile's."""
    return CINEPILE if content is None else read_task(content, "the saved task")


def write(folder: Path, task: Task) -> None:
    """Write <folder>/task.yaml, whole or not at all."""
    text = yaml.safe_dump(task.to_dict(), sort_keys=False, allow_unicode=True, width=110)
    write_whole(folder / FILE, text.encode())
