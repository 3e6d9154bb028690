"""The limit that a training's speed is a share of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cinetune.runtime import limit

pytestmark = pytest.mark.training


def test_operations_are_counted_for_products_alone_over_the_time_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed = []

    def a_hundredth_second_each(multiply: Callable[[], torch.Tensor], count: int, device: str) -> float:
        assert multiply().shape == (limit.SIDE_ON_CPU, limit.SIDE_ON_CPU)
        timed.append(count)
        return 0.01 * count

    monkeypatch.setattr(limit, "repeated", a_hundredth_second_each)
    assert limit.matrix_flops("cpu", "float32", seconds=0.05) == pytest.approx(2 * limit.SIDE_ON_CPU**3 / 0.01)
    # The first are not counted, nor is a run that is too short.
    assert timed == [2, 1, 2, 4, 8]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_product_is_of_the_shape_and_type_that_were_asked_for(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(limit, "repeated", lambda multiply, count, device: seen.append(multiply()) or 1.0)
    limit.product_seconds("cpu", dtype, rows=5, inner=7, columns=3)
    assert all(found.shape == (5, 3) and found.dtype == getattr(torch, dtype) for found in seen)
    # Of random numbers: a GPU is faster at ones.
    assert seen[0].unique().numel() > 10


def test_a_trainings_random_numbers_are_left_alone() -> None:
    state = torch.get_rng_state()
    assert limit.matrix_flops("cpu", "float32", seconds=0.001) > 0
    assert torch.equal(torch.get_rng_state(), state)
