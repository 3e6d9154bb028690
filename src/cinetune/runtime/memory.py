"""How much memory is used, and what to change when there is too little."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cinetune.errors import InputError

KNOBS = (
    "set train.activation_checkpointing to all, lower train.tokens_per_pack or train.questions_per_pack, lower "
    "prompt.max_subtitle_tokens, or set model.quantization to nf4"
)


def peak_gb() -> float:
    """Peak memory of this process so far: on the GPU where there is one, else in all."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def free_bytes() -> int:
    """What this process may still take of the GPU, short of a twentieth that is lost between blocks."""
    free, whole = torch.cuda.mem_get_info()
    held, used = torch.cuda.memory_reserved(), torch.cuda.memory_allocated()
    limit = torch.cuda.get_per_process_memory_fraction() * whole
    return int(min(free + held - used, limit - used) - 0.05 * min(whole, limit))


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turns running out of memory into one sentence that says which knobs to turn."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_cuda = isinstance(error, torch.OutOfMemoryError)
        if not (is_cuda or isinstance(error, MemoryError) or "can't allocate memory" in str(error)):
            raise
        place = "GPU" if is_cuda else "machine"
        raise InputError(
            f"the {place}'s memory ran out while {doing} ({peak_gb():.1f} GB were held at most): {KNOBS}."
        ) from None
