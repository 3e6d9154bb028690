"""Which server is asked and which of its models, from `openai:<base url>#<model>`."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cinetune.errors import InputError, reason_of

logger = logging.getLogger(__name__)

PREFIX = "openai:"
KEY = "OPENAI_API_KEY"
FORM = "write openai:<base url>#<model>, as in openai:http://127.0.0.1:8000/v1#my-model"
# What a request's own settings may not change: the question and how its reply is read.
OURS = ("model", "messages", "stream", "n")


@dataclass(frozen=True)
class Endpoint:
    """`url` ends without a slash, at what /chat/completions follows."""

    url: str
    model: str

    @classmethod
    def parse(cls, name: str) -> Endpoint:
        """Raises InputError for what names no server and model, and for an address that holds a secret."""
        address, _, model = name.removeprefix(PREFIX).partition("#")
        try:
            parts = urlsplit(address)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host, parts = None, urlsplit("")
        if "@" in parts.netloc or parts.query:
            # It would be saved with the evaluation.
            raise InputError(f"the server's address must hold neither a user nor a query: put the key into {KEY}.")
        if parts.scheme not in ("http", "https") or not host or not name.isprintable() or " " in address:
            raise InputError(f"evaluate.model {name[:200]!r} names no server: {FORM}.")
        if not model:
            raise InputError(f"evaluate.model {name[:200]!r} names no model of the server: {FORM}.")
        return cls(address.rstrip("/"), model)

    @property
    def title(self) -> str:
        return f"{self.model} at {self.url}"

    def key(self) -> str:
        """The key in the environment, or "". Raises InputError for one that no header could hold; it is not shown."""
        key = os.environ.get(KEY, "").strip()
        if not key.isascii() or not (key.isprintable() or not key) or " " in key:
            raise InputError(f"{KEY} must be printable ASCII without spaces: set it again.")
        if key and self.url.startswith("http://") and not _is_loopback(urlsplit(self.url).hostname or ""):
            logger.warning("the key goes to %s without encryption: use https where others can listen.", self.url)
        return key


def read_body(text: str) -> dict[str, Any]:
    """Settings of a request that take the place of ours, from JSON; a null leaves ours out."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"evaluate.server_body is not JSON: {reason_of(error)}.") from None
    if not isinstance(found, dict):
        raise InputError('evaluate.server_body must be a JSON object, as in {"max_completion_tokens": 64}.')
    taken = [name for name in OURS if name in found]
    if taken:
        raise InputError(f"evaluate.server_body may not set {taken[0]!r}: leave it out.")
    return found


def read_prices(text: str) -> tuple[float, float] | None:
    """Prices of a million tokens read and of a million written, or None where they are not known."""
    words = text.split()
    if not words:
        return None
    try:
        prices = [float(word) for word in words]
    except ValueError:
        prices = []
    if len(prices) != 2 or not all(0 <= price < float("inf") for price in prices):
        raise InputError(
            f"evaluate.server_prices must be two prices of a million tokens, read and written, got {text!r}: write "
            'them as in "0.15 0.60".'
        )
    return prices[0], prices[1]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
