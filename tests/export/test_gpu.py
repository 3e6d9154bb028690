"""Exports of the large model's shape in bfloat16; needs torch, transformers and peft alone.

PYTHONPATH=src:tests python -m pytest -m gpu --noconftest tests/export/test_gpu.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from builders import trainings
from builders.exports import CLIPS, large_frames_of, shaped_source
from cinetune.export import exporting, proof

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.serving,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
# The 7B's widths, with two of its layers.
SHAPE = {"width": 4096, "heads": 32, "layers": 2, "vision_width": 1024}


@pytest.mark.parametrize("to", ["llava", "merged", "adapter"])
def test_a_shape_of_7b_is_exported_within_one_rounding_step(tmp_path: Path, to: str) -> None:
    chosen = trainings.PARAMS.override("export", {"to": to, "questions": 5}).export
    proven = exporting.export(shaped_source(tmp_path, **SHAPE), chosen, CLIPS, large_frames_of, tmp_path / to)
    print({name: value for name, value in proven.items() if name.startswith(("largest", "rounding", "same"))})
    assert (proven["device"], proven["dtype"], proven["questions"]) == ("cuda", "bfloat16", 5)
    assert proven["largest_difference"] <= proven["rounding_step"] <= 0.01 * proven["largest_logit"]
    assert proven["largest_pixel_difference"] <= proof.PIXEL_ROUNDING
