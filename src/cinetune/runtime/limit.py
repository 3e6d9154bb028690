"""How fast this machine multiplies matrices: the limit that a training's speed is a share of.

Measured on random numbers (a GPU multiplies ones a tenth faster), one product after another, and waited for once: what
it takes to launch one and to read its result is no part of the limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from cinetune.model import float8
from cinetune.model.base import DTYPES

# The name of products of float8 with a scale a row, beside those of DTYPES.
FLOAT8 = "float8"
SIDE_ON_GPU, SIDE_ON_CPU = 4096, 768


def matrix_flops(device: str, dtype: str, seconds: float = 0.3) -> float:
    """Floating-point operations a second of large square products; dtype: of DTYPES, or FLOAT8 on a GPU."""
    side = SIDE_ON_CPU if torch.device(device).type == "cpu" else SIDE_ON_GPU
    return 2 * side**3 / product_seconds(device, dtype, side, side, side, seconds)


def product_seconds(device: str, dtype: str, rows: int, inner: int, columns: int, seconds: float = 0.1) -> float:
    """Seconds of the product of [rows, inner] with the transpose of [columns, inner], in `seconds` of them or more."""
    # Of its own: a training's random numbers are decided by its seed alone.
    generator = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(count, inner, generator=generator, device=device, dtype=torch.float32) for count in (rows, columns)
    )
    multiply = _product_of_float8(left, right) if dtype == FLOAT8 else _product(left.to(DTYPES[dtype]), right)
    repeated(multiply, 2, device)
    count = 1
    while (taken := repeated(multiply, count, device)) < seconds:
        count *= 2
    return taken / count


def _product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], object]:
    turned = right.to(left.dtype).T
    result = left.new_empty(left.shape[0], right.shape[0])
    return lambda: torch.mm(left, turned, out=result)


def _product_of_float8(left: torch.Tensor, right: torch.Tensor) -> Callable[[], object]:
    rows, scales = float8.rounded(left)
    weight, factors = float8.rounded(right)
    given = rows, scales, weight.view(torch.uint8), factors.T.contiguous()
    return lambda: float8.multiplied(*given, torch.bfloat16)


def repeated(multiply: Callable[[], object], count: int, device: str) -> float:
    started = time.monotonic()
    for _ in range(count):
        multiply()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - started
