"""Fixtures of all that is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.videos import LIMITS, numbered
from cinetune.frames.decoder import Decoder
from cinetune.frames.encoding import encode


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(LIMITS) as decoder:
        yield decoder


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.mp4"
    encode(path, numbered(96), 12)
    return path
