"""Decoding steps as CUDA graphs: the cache has a fixed length, every question a row of its own to the end.

A graph feeds what it chose to its next run, so that a step costs one launch. It reads weights where they lay when it
was made: weights that moved, or adapters that were switched, make it void. Graphs of a model are used by one thread at
a time; another one steps as on a CPU, and so does everything where no graph can be made.
"""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from cinetune.model.packing import PREFIX
from cinetune.runtime import memory

logger = logging.getLogger(__name__)

# Graphs are made for numbers of questions that are powers of two, and for caches of multiples of so many tokens.
TOKENS_A_SIZE = 512
# A longer cache, which every step would read to its end, is left to grow.
LONGEST = 8192
GRAPHS_KEPT = 8
# Of the free memory, for the graphs' cache at most.
FREE_SHARE = 0.5

Take = Callable[[Sequence[tuple[int, int]]], list[int]]


def suit(device: torch.device) -> bool:
    return device.type == "cuda"


class Stepper:
    """Steps of one pack's questions: `continued` enters it, takes, and leaves.

    otherwise: what takes the steps where no graph can.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        cache: DynamicCache,
        segments: torch.Tensor,
        positions: torch.Tensor,
        steps: int,
        otherwise: Take,
    ) -> None:
        self.base = _base(model)
        self.cache, self.segments, self.positions, self.steps = cache, segments, positions, steps
        self.take_otherwise = otherwise
        self.graphs = graphs_of(self.base)
        self.is_mine = False
        self.step: Step | None = None
        self.rows: dict[int, int] = {}

    def __enter__(self) -> Take:
        self.is_mine = self.graphs.lock.acquire(blocking=False)
        return self._take if self.is_mine else self.take_otherwise

    def __exit__(self, *error: object) -> None:
        if self.is_mine:
            self.graphs.lock.release()

    def _take(self, going_on: Sequence[tuple[int, int]]) -> list[int]:
        if not self.rows:
            self.rows = {owner: row for row, (owner, _) in enumerate(going_on)}
            self.step = self._begun(going_on)
        if self.step is None:
            return self.take_otherwise(going_on)
        chosen = self.step.run(self.base)
        return [chosen[self.rows[owner]] for owner, _ in going_on]

    def _begun(self, going_on: Sequence[tuple[int, int]]) -> Step | None:
        rows = 1 << (len(going_on) - 1).bit_length()
        length = -(-(len(self.segments) + rows * (self.steps - 1)) // TOKENS_A_SIZE) * TOKENS_A_SIZE
        if self.graphs.problem or length > LONGEST:
            return None
        try:
            step = self.graphs.step_of(self.base, rows, length)
            if step is None:
                return None
            step.begin(self.cache, self.segments, self.positions, going_on)
            step.prepare(self.base, self.graphs.pool)
        except RuntimeError as error:
            self.graphs.fail(str(error).strip().partition("\n")[0][:150])
            return None
        return step


class Graphs:
    """A model's, with the one cache that all of them use."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.problem, self.pool = "", None
        self.made_for: tuple[Any, ...] = ()
        self.held: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.steps: dict[tuple[int, int], Step] = {}

    def step_of(self, base: Any, rows: int, length: int) -> Step | None:
        """None where a cache of such a length would take most of the memory that is free."""
        made_for = _identity(base)
        if made_for != self.made_for or not self.held or self.held[0][0].shape[2] < length:
            self.steps.clear()
            self.held.clear()
            if _cache_bytes(base, length) > FREE_SHARE * free_bytes(base):
                return None
            self.held = _empty_cache(base, length)
            self.made_for = made_for
            self.pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None
        if (rows, length) not in self.steps:
            if len(self.steps) >= GRAPHS_KEPT:
                self.steps.pop(next(iter(self.steps)))
            self.steps[rows, length] = Step(self.held, rows, length)
        return self.steps[rows, length]

    def fail(self, problem: str) -> None:
        self.problem = problem
        self.steps.clear()
        self.held.clear()
        logger.warning("answers: no CUDA graph can be made here (%s): words come more slowly.", problem)


_graphs: weakref.WeakKeyDictionary[torch.nn.Module, Graphs] = weakref.WeakKeyDictionary()


def release(model: Any) -> None:
    """Give back the memory of a model's graphs."""
    _graphs.pop(_base(model), None)


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def graphs_of(base: torch.nn.Module) -> Graphs:
    return _graphs.setdefault(base, Graphs())


def _identity(base: Any) -> tuple[Any, ...]:
    """Where all weights lie, and which adapters are at work."""
    language = base.model.language_model
    adapters = [
        (module.merged, module.disable_adapters, *((name, module.scaling.get(name)) for name in module.active_adapters))
        for module in language.modules()
        if hasattr(module, "active_adapters") and hasattr(module, "merged")
    ]
    weights: Iterable[torch.Tensor] = [*language.parameters(), *language.buffers(), *base.lm_head.parameters()]
    return base.training, *adapters, *(weight.data_ptr() for weight in weights)


def _cache_shape(base: Any, length: int) -> tuple[int, ...]:
    config = base.config.text_config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, 2, 1, config.num_key_value_heads, length, width


def _cache_bytes(base: Any, length: int) -> int:
    return math.prod(_cache_shape(base, length)) * base.get_input_embeddings().weight.element_size()


def free_bytes(base: Any) -> float:
    return memory.free_bytes() if base.get_input_embeddings().weight.is_cuda else math.inf


def _empty_cache(base: Any, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values [1, heads, length, width] of each layer."""
    layers, _, *shape = _cache_shape(base, length)
    like = base.get_input_embeddings().weight
    return [(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(layers)]


class Step:
    """One step of `rows` questions, of which those behind the last are nobody's.

    It is the cache of the language model too: what is written goes to the rows' places.
    """

    def __init__(self, held: Sequence[tuple[torch.Tensor, torch.Tensor]], rows: int, length: int) -> None:
        self.held = [(keys[:, :, :length], values[:, :, :length]) for keys, values in held]
        keys = held[0][0]
        self.lowest = torch.finfo(keys.dtype).min
        self.ids = torch.zeros(1, rows, dtype=torch.int64, device=keys.device)
        self.positions, self.places = torch.zeros_like(self.ids), torch.zeros_like(self.ids[0])
        self.mask = keys.new_full((1, 1, rows, length), self.lowest)
        self.graph: Any = None

    def begin(
        self,
        cache: DynamicCache,
        segments: torch.Tensor,
        positions: torch.Tensor,
        going_on: Sequence[tuple[int, int]],
    ) -> None:
        """Take over what was read, and each question's first token."""
        device, count, read = segments.device, len(going_on), len(segments)
        for (keys, values), layer in zip(self.held, cache.layers, strict=True):
            for whole, part in ((keys, layer.keys), (values, layer.values)):
                whole[:, :, :read].copy_(part)
                # What was never written could hold what is no number, which no mask hides.
                whole[:, :, read:].zero_()
        owners, tokens = (torch.tensor(column, device=device) for column in zip(*going_on, strict=True))
        for held, given in ((self.ids, tokens), (self.positions, positions[owners] + 1)):
            held.zero_()
            held[0, :count] = given
        self.places.copy_(read + torch.arange(len(self.places), device=device))
        self.mask.fill_(self.lowest)
        allowed = (segments == PREFIX) | (segments == owners[:, None] + 1)
        self.mask[0, 0, :count, :read].masked_fill_(allowed, 0)
        self._see_own()

    def _see_own(self) -> None:
        self.mask[0, 0].scatter_(1, self.places[:, None], 0)

    def prepare(self, base: Any, pool: Any) -> None:
        """Make the graph, once; what was begun is as it was."""
        if self.graph is not None or not self.ids.is_cuda:
            return
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            self._logits(base)
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Another thread may be preparing what comes next.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self._advance(base)
        self.graph = graph

    def run(self, base: Any) -> list[int]:
        """Each row's next token."""
        if self.graph is None:
            self._advance(base)
        else:
            self.graph.replay()
        chosen: list[int] = self.ids[0].tolist()
        return chosen

    def _advance(self, base: Any) -> None:
        self.ids.copy_(self._logits(base).argmax(-1)[None])
        self.positions.add_(1)
        self.places.add_(len(self.places)).clamp_(max=self.mask.shape[-1] - 1)
        self._see_own()

    def _logits(self, base: Any) -> torch.Tensor:
        hidden = base.model.language_model(
            input_ids=self.ids,
            position_ids=self.positions,
            attention_mask=self.mask,
            past_key_values=self,
            use_cache=True,
        ).last_hidden_state
        return base.lm_head(hidden)[0]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *rest: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a layer calls its cache for."""
        for held, given in zip(self.held[layer], (keys, values), strict=True):
            held.index_copy_(2, self.places, given)
        return self.held[layer]
