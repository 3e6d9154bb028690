"""What a training reports: speed, memory, losses, validation accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    VideoLlavaForConditionalGeneration,
)

from cinetune.model import float8, planning
from cinetune.model.sizes import size_of
from cinetune.runtime import cost, distributed, limit, memory

if TYPE_CHECKING:
    pass

Report = Callable[[int, Mapping[str, float]], None]


class Meter(TrainerCallback):
    """Speed between two logs, over all processes; validating and saving do not count.

    flops_per_token: floating-point operations of the model, forward and backward; matrix_flops: a second, of large
    matrix products on one device (`runtime.limit`). Their ratio is the model FLOPs utilisation (MFU); what is
    recomputed does not count.
    """

    def __init__(self, flops_per_token: float, matrix_flops: float) -> None:
        self.flops_per_token, self.matrix_flops = flops_per_token, matrix_flops
        self.seconds = 0.0
        self.counts = torch.zeros(2)
        self._since = time.monotonic()

    def add(self, counts: torch.Tensor) -> None:
        """counts [2]: questions and tokens of one optimiser step."""
        self.counts = self.counts.to(counts.device) + counts

    def read(self) -> dict[str, float]:
        """Speed and peak memory since the last call."""
        questions, tokens = self.counts.tolist()
        flops = tokens * self.flops_per_token / self.seconds
        rates = {
            "questions_per_s": questions / self.seconds,
            "tokens_per_s": tokens / self.seconds,
            "tflops": flops / 1e12,
            "mfu": flops / (self.matrix_flops * distributed.count()),
        }
        self.seconds, self.counts = 0.0, torch.zeros(2)
        return rates | {"peak_memory_gb": memory.peak_gb()}

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds += time.monotonic() - self._since
        self._since = time.monotonic()

    def _pass_over(self, *args: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()

    on_train_begin = on_evaluate = on_save = _pass_over


class Reporter(TrainerCallback):
    """Passes the Trainer's metrics on under the project's names."""

    NAMES = (
        "loss", "learning_rate", "grad_norm", "questions_per_s", "tokens_per_s", "tflops", "mfu", "peak_memory_gb",
    )  # fmt: skip

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        logged = logs or {}
        metrics = {f"train/{name}": logged[name] for name in self.NAMES if name in logged}
        metrics |= {
            name.replace("eval_", "validation/", 1): value
            for name, value in logged.items()
            if name.startswith("eval_accuracy")
        }
        if metrics:
            self.report(state.global_step, metrics)


def meter_of(model: VideoLlavaForConditionalGeneration, plan: planning.Plan, lora_rank: int) -> Meter:
    weight = model.get_input_embeddings().weight
    # A CPU multiplies float8's numbers in another type.
    dtype = limit.FLOAT8 if weight.is_cuda and float8.is_in(model) else str(weight.dtype).removeprefix("torch.")
    flops = cost.flops(plan, size_of(model.config, lora_rank))
    return Meter(flops / plan.tokens, limit.matrix_flops(str(weight.device), dtype, seconds=0.1))
