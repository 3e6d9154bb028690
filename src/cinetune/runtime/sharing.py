"""Which packs of an optimiser step each process takes, so that none waits long for the others.

An optimiser step ends when its slowest process does. Its packs are dealt out so that what they cost together is as even
over the processes as the same number of packs for each allows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from torch.utils.data import BatchSampler

from cinetune.errors import InputError

Deal = Callable[[Sequence[float], int], list[int]]


def check_shares(clips_per_step: int, count: int) -> None:
    """Raises InputError where processes would not have equally many packs a step."""
    if clips_per_step % count:
        raise InputError(f"train.clips_per_step={clips_per_step} must be a multiple of the {count} processes.")


def evenly(costs: Sequence[float], count: int) -> list[int]:
    """The order of a step's packs that gives `count` processes, dealt to in turn, about the same cost each.

    Each pack has its place once; where they do not come out even, the cheapest is repeated behind all others. The most
    expensive ones are placed first, each with the process that has the least so far and still has room.
    """
    num_packs = len(costs)
    cheapest = min(range(num_packs), key=lambda pack: costs[pack])
    room = [-(-(num_packs - process) // count) for process in range(count)]
    # A process with a pack less repeats one.
    loads = [costs[cheapest] * (places < room[0]) for places in room]
    shares: list[list[int]] = [[] for _ in range(count)]
    for pack in sorted(range(num_packs), key=lambda pack: -costs[pack]):
        free = (process for process in range(count) if len(shares[process]) < room[process])
        process = min(free, key=lambda process: loads[process])
        shares[process].append(pack)
        loads[process] += costs[pack]
    return [
        share[turn] if turn < len(share) else cheapest for turn in range(room[0]) for share in shares
    ]  # fmt: skip


def in_turn(costs: Sequence[float], count: int) -> list[int]:
    """The order as it is, the first packs repeated behind the last where they do not come out even."""
    num_packs = len(costs)
    return [place % num_packs for place in range(num_packs + -num_packs % count)]


def share_of_linear(
    costs: Sequence[float], packs_per_step: int, count: int, deal: Deal = evenly, epochs: int = 1, seed: int = 0
) -> float:
    """Of `count` times one process's speed, what the costs of the packs alone allow, in shuffled epochs."""
    rng, packs = random.Random(seed), list(costs)
    slowest = 0.0
    for _ in range(epochs):
        rng.shuffle(packs)
        for first in range(0, len(packs), packs_per_step):
            step = packs[first : first + packs_per_step]
            order = deal(step, count)
            slowest += max(sum(step[pack] for pack in order[process::count]) for process in range(count))
    return epochs * sum(packs) / (count * slowest)


class EvenSteps(BatchSampler):
    """Batches of one pack each, in an order in which `count` processes that take them in turn share each step evenly.

    A step holds the packs that it holds without, whatever the count. costs: of each pack, by its number.
    """

    def __init__(self, batches: BatchSampler, costs: Sequence[float], packs_per_step: int, count: int) -> None:
        self.batches, self.costs = batches, costs
        self.packs_per_step, self.count = packs_per_step, count

    def __len__(self) -> int:
        return len(self.batches) + -len(self.batches) % self.count

    def __iter__(self) -> Iterator[list[int]]:
        batches = iter(self.batches)
        while step := list(islice(batches, self.packs_per_step)):
            order = evenly([sum(self.costs[pack] for pack in batch) for batch in step], self.count)
            yield from (step[place] for place in order)
