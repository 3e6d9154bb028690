"""The packs of a step are shared out evenly: each once, the same ones as in one process, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import BatchSampler, SequentialSampler

from builders.refusals import sentence
from cinetune.runtime.sharing import EvenSteps, check_shares, evenly, in_turn, share_of_linear

pytestmark = pytest.mark.training


def loads(costs: list[float], order: list[int], count: int) -> list[float]:
    return [sum(costs[pack] for pack in order[process::count]) for process in range(count)]


def drawn(num_packs: int, seed: int) -> list[float]:
    return np.random.default_rng(seed).uniform(3_500, 8_000, num_packs).round().tolist()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("num_packs", [1, 2, 5, 8, 16, 17])
def test_each_pack_of_a_step_has_one_place_and_repeats_stand_behind_all(num_packs: int, count: int) -> None:
    costs = drawn(num_packs, seed=num_packs)
    order = evenly(costs, count)
    assert len(order) % count == 0 and len(order) - num_packs < count
    assert sorted(order[:num_packs]) == list(range(num_packs))
    assert {costs[pack] for pack in order[num_packs:]} <= {min(costs)}
    assert evenly(costs, count) == order


def test_the_longest_packs_are_paired_with_the_shortest() -> None:
    costs = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert loads(costs, evenly(costs, 4), 4) == [9.0] * 4
    assert evenly([5.0, 5.0, 5.0, 5.0], 2) == [0, 1, 2, 3]
    # The third process repeats the cheapest pack in its second place, and that counts.
    costs = [9.0, 1.0, 8.0, 3.0, 5.0]
    order = evenly(costs, 3)
    assert order[-1] == 1 and loads(costs, order, 3) == [10.0, 11.0, 6.0]


@pytest.mark.parametrize(("count", "bound"), [(2, 1.02), (4, 1.05), (8, 1.15)])
def test_no_process_has_much_more_than_the_others(count: int, bound: float) -> None:
    worst_by_cost = worst_in_turn = 0.0
    for seed in range(200):
        costs = drawn(16, seed)
        mean = sum(costs) / count
        worst_by_cost = max(worst_by_cost, max(loads(costs, evenly(costs, count), count)) / mean)
        worst_in_turn = max(worst_in_turn, max(loads(costs, in_turn(costs, count), count)) / mean)
    assert worst_by_cost < bound and worst_by_cost - 1 < (worst_in_turn - 1) / 2


def test_of_linear_more_is_left_by_cost_than_at_random() -> None:
    costs = drawn(800, seed=0)
    for count in (2, 4, 8):
        by_cost = share_of_linear(costs, 16, count)
        at_random = share_of_linear(costs, 16, count, in_turn)
        assert at_random < by_cost < 1 and 1 - by_cost < (1 - at_random) / 2
    assert share_of_linear(costs, 16, 1) == pytest.approx(1)
    # One pack for each process is dealt as it comes.
    assert share_of_linear(costs, 8, 8) == pytest.approx(share_of_linear(costs, 8, 8, in_turn))
    # A step of one pack keeps one of two processes busy.
    assert share_of_linear([5.0], 2, 2) == pytest.approx(0.5)


def test_a_step_that_cannot_be_shared_is_refused() -> None:
    check_shares(16, 8)
    assert "train.clips_per_step=6 must be a multiple of the 4 processes" in sentence(lambda: check_shares(6, 4))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_step_holds_the_packs_of_one_process_and_a_short_last_one_is_filled_up(count: int) -> None:
    costs = drawn(21, seed=3)
    alone = BatchSampler(SequentialSampler(range(21)), 1, drop_last=False)
    steps = EvenSteps(alone, costs, 8, count)
    given = [pack for [pack] in steps]
    assert len(given) == len(steps) == 21 + -21 % count
    for first in range(0, 21, 8):
        assert sorted(given[first : min(first + 8, 21)]) == list(range(first, min(first + 8, 21)))
    assert set(given[21:]) <= {min(range(16, 21), key=lambda pack: costs[pack])}
    assert [pack for [pack] in steps] == given
