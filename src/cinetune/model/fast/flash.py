"""The kernels of packs' attention on a GPU: FlashAttention 4 where it is installed, torch's FlashAttention 2 elsewhere.

Both return the logarithm of each softmax's sum with what they mixed, and both take in the backward pass what several
products mixed and the sums over all of them. FlashAttention 4 is called by functions that are private to it: it is used
in the one version that was checked, and where it gives this machine's numbers of FlashAttention 2. A line says why not.
"""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

import torch

logger = logging.getLogger(__name__)

DISTRIBUTION, CHECKED = "flash-attn-4", "4.0.0b36"
REMEDY = "install cinetune[fast]"
# Hopper and the data centre's Blackwell, by the first part of the compute capability.
CARDS = (9, 10)
# Of results in half precision by their length; two kernels differed by less than a fourth of it.
NEAR = 0.02
# What a package of another make raises; its compiler has a kind of its own beside them.
FAILURES = (ImportError, AttributeError, TypeError, ValueError, AssertionError, RuntimeError, OSError)
# Said once for each kind of product that is compiled, and of no consequence.
SAID_BY_COMPILER = r"Argument \w+ \(position \d+\) cannot be converted to a JitArgument"

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Kernels:
    """One implementation, under the name that a run is tagged with.

    forward: query, key, value [T, heads, width], borders, longest, scale -> mixed [T, heads, width] and the sums'
    logarithms [heads, T], float32. With borders (int32 [segments + 1]) every segment of up to `longest` tokens sees
    itself, causally; with None every query sees every key. backward: the gradient of what was mixed ahead of query, key
    and value, mixed and sums behind them -> the gradients of query, key and value.
    """

    name: str
    forward: Callable[..., Tensors]
    backward: Callable[..., Tensors]


def _torch_forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    borders: torch.Tensor | None,
    longest: int,
    scale: float,
) -> Tensors:
    run = torch.ops.aten._flash_attention_forward
    if borders is not None:
        mixed, sums, *_ = run(
            query, key, value, borders, borders, longest, longest, 0.0, True, False, scale=scale
        )  # fmt: skip
        return mixed, sums
    mixed, sums, *_ = run(
        query[None], key[None], value[None], None, None, query.shape[0], key.shape[0], 0.0, False, False, scale=scale
    )
    return mixed[0], sums[0]


def _torch_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mixed: torch.Tensor,
    sums: torch.Tensor,
    borders: torch.Tensor | None,
    longest: int,
    scale: float,
) -> Tensors:
    run, unused = torch.ops.aten._flash_attention_backward, torch.empty(0, device=query.device)
    given = grad, query, key, value, mixed, sums
    if borders is not None:
        return run(*given, borders, borders, longest, longest, 0.0, True, unused, unused, scale=scale)
    batch = (tensor[None] for tensor in given)
    lengths = query.shape[0], key.shape[0]
    grads = run(*batch, None, None, *lengths, 0.0, False, unused, unused, scale=scale)
    return tuple(grad[0] for grad in grads)


OF_TORCH = Kernels("FlashAttention 2 of torch", _torch_forward, _torch_backward)


def version_4(interface: Any) -> Kernels:
    def forward(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        borders: torch.Tensor | None,
        longest: int,
        scale: float,
    ) -> Tensors:
        run, options = interface._flash_attn_fwd, {"softmax_scale": scale, "return_lse": True}
        if borders is not None:
            mixed, sums, *_ = run(query, key, value, causal=True, **_segments(borders, longest), **options)
            return mixed, sums
        mixed, sums, *_ = run(query[None], key[None], value[None], causal=False, **options)
        return mixed[0], sums[0]

    def backward(
        grad: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mixed: torch.Tensor,
        sums: torch.Tensor,
        borders: torch.Tensor | None,
        longest: int,
        scale: float,
    ) -> Tensors:
        run, given = interface._flash_attn_bwd, (query, key, value, mixed, grad, sums)
        if borders is not None:
            query_grad, key_grad, value_grad = run(
                *given, softmax_scale=scale, causal=True, **_segments(borders, longest)
            )
            return query_grad, key_grad, value_grad
        batch = (tensor[None] for tensor in given)
        query_grad, key_grad, value_grad = run(*batch, softmax_scale=scale, causal=False)
        return query_grad[0], key_grad[0], value_grad[0]

    return Kernels(f"FlashAttention {CHECKED}", forward, backward)


def _segments(borders: torch.Tensor, longest: int) -> dict[str, Any]:
    return {"cu_seqlens_q": borders, "cu_seqlens_k": borders, "max_seqlen_q": longest, "max_seqlen_k": longest}


@functools.cache
def kernels_for(device: torch.device, dtype: torch.dtype, width: int, group: int) -> Kernels:
    """What computes attention of heads of a width, `group` of the query's for one of the keys'; found out once."""
    found = installed(device)
    if found is None:
        return OF_TORCH
    try:
        difference = _difference(found, device, dtype, width, group)
    except _failures() as error:
        said = str(error).strip().splitlines()
        problem = f"fails with {said[0][:150] if said else type(error).__name__}"
    else:
        if difference <= NEAR:
            return found
        problem = f"differs by {difference:.2g} where rounding explains {NEAR:g}"
    logger.warning("attention: %s is used, for %s %s on this machine.", OF_TORCH.name, found.name, problem)
    return OF_TORCH


@functools.cache
def installed(device: torch.device) -> Kernels | None:
    """FlashAttention 4, or None and a line that says what is in its way."""
    capability = torch.cuda.get_device_capability(device)
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version = None
    if capability[0] not in CARDS:
        if version:
            told = ".".join(map(str, capability))
            logger.info(
                "attention: %s is used, for version 4 does not suit compute capability %s.", OF_TORCH.name, told
            )
        return None
    if version is None:
        logger.info("attention: %s is used; version 4 is faster on this GPU: %s.", OF_TORCH.name, REMEDY)
        return None
    if version != CHECKED:
        logger.warning(
            "attention: %s is used, for %s %s is not %s, which was checked: %s.",
            OF_TORCH.name, DISTRIBUTION, version, CHECKED, REMEDY,
        )  # fmt: skip
        return None
    warnings.filterwarnings("ignore", message=SAID_BY_COMPILER, category=UserWarning)
    try:
        return version_4(import_module("flash_attn.cute.interface"))
    except _failures() as error:
        logger.warning(
            "attention: %s is used, for %s cannot be imported (%s): %s.", OF_TORCH.name, DISTRIBUTION, error, REMEDY
        )
        return None


def _failures() -> tuple[type[Exception], ...]:
    own = getattr(sys.modules.get("cutlass.base_dsl.common"), "DSLBaseError", RuntimeError)
    return (*FAILURES, own)


def _difference(kernels: Kernels, device: torch.device, dtype: torch.dtype, width: int, group: int) -> float:
    """The furthest that a result is from torch's, as a share of its length; inf where a number is none."""
    generator = torch.Generator(device).manual_seed(0)

    def random(heads: int) -> torch.Tensor:
        return torch.randn(300, heads, width, generator=generator, device=device, dtype=dtype)

    given = random(2 * group), random(2 * group), random(2), random(2)
    segments = torch.tensor([0, 200, 260, 300], dtype=torch.int32, device=device)
    differences = [
        (one.float() - other.float()).norm() / one.float().norm()
        for borders in (segments, None)
        for one, other in zip(
            _both_passes(OF_TORCH, *given, borders), _both_passes(kernels, *given, borders), strict=True
        )
    ]
    return float(torch.stack(differences).nan_to_num(float("inf")).max())


def _both_passes(
    kernels: Kernels,
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    borders: torch.Tensor | None,
) -> Tensors:
    scale = query.shape[-1] ** -0.5
    mixed, sums = kernels.forward(query, key, value, borders, 200, scale)
    return mixed, sums, *kernels.backward(grad, query, key, value, mixed, sums, borders, 200, scale)
