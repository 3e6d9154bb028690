"""Bodies of requests as JSON: what could fill the memory is refused before it is parsed; errors in one sentence."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from cinetune.errors import InputError

# Each takes up to a hundred bytes once it is parsed, so that a small body would fill the memory. Base64 has none.
MAX_SEPARATORS = 500_000
MAX_NAME_CHARS = 80
# No text but a video's is as long as two of them.
TEXT_BLOCK = 2 << 20
# What a value must be, by the type of pydantic's error.
TYPES = {
    "model_type": "an object", "dict_type": "an object", "list_type": "a list", "int_type": "a whole number",
    "string_type": "text", "bool_type": "true or false", "model_attributes_type": "an object",
}  # fmt: skip
# What its size must be, by the same, with pydantic's names of the bounds.
SIZES = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_long": "may hold {max_length} values, got {actual_length}",
}
UNKNOWN = "unknown_key"


class Exact(BaseModel):
    """An object of a request, of which every key is known.

    The first that is not is the only error: one for each of half a million would fill the memory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ClassVar[str] = "key"

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, content: Any) -> Any:
        if isinstance(content, dict) and not content.keys() <= cls.model_fields.keys():
            first = next(name for name in content if name not in cls.model_fields)
            raise PydanticCustomError(UNKNOWN, "{told}", {"told": unknown(cls.kind, first, cls.model_fields)})
        return content


def read(body: bytes) -> Any:
    """What a JSON body holds. Raises InputError for what is none."""
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_SEPARATORS:
        raise InputError(f"the request holds more than {MAX_SEPARATORS} commas and brackets: send fewer rows.")
    for text in _long_texts(body):
        if not text.isascii() or b"\\u" in text:
            raise InputError("a text of more than 4 MB must be base64: shorten it.")
    try:
        # As Windows writes files of UTF-8.
        return from_json(body.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        # It names a place and no content.
        raise InputError(f"the request's body is not JSON: {error}.") from None


def _long_texts(body: bytes) -> Iterator[bytes]:
    """Every text of more than two blocks: a wide letter in it would make all its letters as wide."""
    end = 0
    for start in range(0, len(body), TEXT_BLOCK):
        if start >= end and body.find(b'"', start, start + TEXT_BLOCK) < 0:
            end = body.find(b'"', start)
            end = len(body) if end < 0 else end
            text = body[body.rfind(b'"', 0, start) + 1 : end]
            if len(text) > 2 * TEXT_BLOCK:
                yield text


def first_of(error: ValidationError) -> ErrorDetails:
    """The first of pydantic's errors, without what it was given."""
    return error.errors(include_url=False, include_input=False)[0]


def sentence(error: ErrorDetails) -> str:
    problem, place = error["type"], ".".join(shorten(part) for part in error["loc"])
    if problem == UNKNOWN:
        return error["msg"]
    if problem in SIZES:
        return f"{place} {SIZES[problem].format_map(error['ctx'])}."
    if problem == "missing":
        return f"{place} is missing: the request cannot be read without it."
    return f"{place} must be {TYPES[problem]}." if problem in TYPES else f"{place}: {error['msg'].lower()}."


def unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    return f"{kind} {shorten(name)!r} is not known: choose from {', '.join(known)}."


def shorten(name: Any) -> str:
    """A name that a client may have chosen."""
    text = str(name)
    return text if len(text) <= MAX_NAME_CHARS else text[:MAX_NAME_CHARS] + ".."
