"""Clips of a few frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_clip(path: Path, seed: int) -> None:
    """Three seconds of three colours."""
    # Where only the core's libraries are there is no PyAV, and nothing to encode.
    from cinetune.frames.encoding import encode

    colours = np.random.default_rng(seed).integers(0, 256, (3, 1, 1, 1, 3), dtype=np.uint8)
    encode(path, np.broadcast_to(colours, (3, 8, 64, 64, 3)).reshape(24, 64, 64, 3), 8)
