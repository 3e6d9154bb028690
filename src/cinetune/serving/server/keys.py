"""The key that clients must show, where the server has one: `Authorization: Bearer <key>`."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping

from cinetune.errors import InputError
from cinetune.serving.server.responses import Refusal

NAME = "CINETUNE_API_KEY"
UNAUTHORIZED = 401


def key_of_environment() -> bytes | None:
    """None where clients need no key. Raises InputError for one that no header could hold; it is not shown."""
    key = os.environ.get(NAME, "")
    if not key:
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"{NAME} must be printable ASCII without spaces: choose another key, or unset it.")
    return key.encode("ascii")


def check(key: bytes | None, headers: Mapping[bytes, bytes]) -> None:
    """Raises Refusal unless the headers show the key."""
    if key is None:
        return
    scheme, _, shown = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer" and hmac.compare_digest(shown.strip(), key):
        return
    problem = "is wrong" if shown.strip() else "is missing"
    sentence = f"the key {problem}: send it as Authorization: Bearer <key>."
    raise Refusal(UNAUTHORIZED, sentence, headers=((b"www-authenticate", b"Bearer"),))
