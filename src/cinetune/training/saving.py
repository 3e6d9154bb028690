"""When a training saves beside its validations, at times and at signals, and what it needs to be told on resuming."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cinetune.runtime.signals import ENDING
from cinetune.training.dataset import Packs

# A terminal signals a whole group of processes, whose parents pass it on: within this time it is one request.
SAME_S = 2.0


class EpochKeeper(TrainerCallback):
    """Tells the packs which epoch begins, or goes on in a training that is resumed."""

    def __init__(self, packs: Packs, steps_per_epoch: int) -> None:
        self._packs, self._steps = packs, steps_per_epoch

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._packs.begin_epoch(state.global_step // self._steps)


class Saver(TrainerCallback):
    """Asks for a checkpoint at the end of a step; after a signal the training ends once that is written.

    Processes that share the work are asked together, whichever of them the signal reached. A further signal ends at
    once.
    """

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._since = time.monotonic()
        self._noted = self._agreed = 0
        self._noted_at = 0.0

    @contextmanager
    def deferring_signals(self) -> Iterator[None]:
        """Signals within the block wait for the checkpoint; those that are ignored stay so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in ENDING}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._noted and now - self._noted_at > SAME_S:
            raise SystemExit(128 + number)
        if not self._noted:
            self._noted, self._noted_at = number, now

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        is_due = bool(self._seconds) and time.monotonic() - self._since >= self._seconds
        asked = torch.tensor([self._noted, int(is_due)], device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        self._agreed = int(asked[0])
        control.should_save = control.should_save or bool(asked.any())
        return control

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()
        if self._agreed:
            raise SystemExit(128 + self._agreed)
