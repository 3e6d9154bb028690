"""Frozen linear layers in 8-bit floating point (e4m3), for GPUs that multiply it about twice as fast as bfloat16.

Weights are rounded once, inputs and gradients as they come; each row (an output's weights, a token's values) has a
scale of its own, by which its largest number becomes float8's largest. Where there is no such GPU the same rounded
numbers are multiplied in the type that they came in: that is slower than no rounding, and shows what it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cinetune.errors import InputError

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
# Ada and Hopper are the first whose tensor cores know the type.
LEAST_CAPABILITY = (8, 9)


def check_device(device: str | torch.device) -> None:
    """Refuse a GPU that cannot multiply the type: it would be slower there than what it is to replace."""
    if torch.device(device).type != "cuda":
        return
    found = torch.cuda.get_device_capability(device)
    if found < LEAST_CAPABILITY:
        wanted = ".".join(map(str, LEAST_CAPABILITY))
        raise InputError(
            f"model.quantization=fp8 needs a GPU of compute capability {wanted} or more, this one has "
            f"{'.'.join(map(str, found))}: set it to none or nf4."
        )


def is_in(model: torch.nn.Module) -> bool:
    """Are there products of float8 in a model?"""
    return any(isinstance(module, Float8Linear) for module in model.modules())


def rounded(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """values [N, K] as float8 [N, K] with a float32 factor for each row, [N, 1]."""
    largest = values.abs().amax(-1, keepdim=True).float()
    scales = largest.clamp(min=torch.finfo(torch.float32).tiny * LARGEST) / LARGEST
    return (values.float() / scales).to(FLOAT8), scales


def multiplied(
    rows: torch.Tensor, scales: torch.Tensor, weight: torch.Tensor, factors: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """The product of what `rounded` gives with the transpose of `weight` * `factors`: [N, M] in `dtype`.

    weight: float8 [M, K] as bytes; factors: float32 [1, M].
    """
    numbers = weight.view(FLOAT8)
    if not rows.is_cuda:
        return ((rows.float() * scales) @ numbers.float().T * factors).to(dtype)
    # With a scale a row it gives bfloat16 alone.
    mixed = torch._scaled_mm(
        rows, numbers.T, scale_a=scales, scale_b=factors, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return mixed.to(dtype)


# `values` are here for their gradient alone. The rounding stands outside, where torch.compile joins it with what is
# ahead of it; an autograd.Function, which could hold both, it fails on behind a break in the graph.
@torch.library.custom_op("cinetune::float8_product", mutates_args=())
def _product(
    values: torch.Tensor,
    rows: torch.Tensor,
    scales: torch.Tensor,
    weight: torch.Tensor,
    turned: torch.Tensor,
    factors: torch.Tensor,
) -> torch.Tensor:
    return multiplied(rows, scales, weight, factors, values.dtype)


@_product.register_fake
def _product_shape(
    values: torch.Tensor, rows: torch.Tensor, scales: torch.Tensor, weight: torch.Tensor, *rest: Any
) -> torch.Tensor:
    return values.new_empty(rows.shape[0], weight.shape[0])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[-2:])


def _give_back(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """The gradient is that of the rounded weights; frozen, they have none of their own."""
    turned, factors = ctx.saved_tensors
    # The outputs' factors stand on the side that is summed over, so they go into what is rounded.
    rows, scales = rounded(grad * factors)
    ones = torch.ones(1, turned.shape[0], device=turned.device)
    return multiplied(rows, scales, turned, ones, grad.dtype), None, None, None, None, None


_product.register_autograd(_give_back, setup_context=_keep)


class Float8Linear(torch.nn.Linear):
    """A frozen linear layer without bias whose products are of float8; on a GPU its weights are kept in both orders.

    Both together take as much memory as one in bfloat16. They are kept as bytes, which every collective
    operation can send.
    """

    # Whether inputs are rounded as well, as they are but for comparisons that their rounding would hide.
    rounds_inputs = True

    def __init__(self, plain: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)
        if plain.bias is not None:
            raise ValueError("a layer with a bias is not supported.")
        self.in_features, self.out_features = plain.in_features, plain.out_features
        # What PEFT makes an adapter's weights in.
        self.compute_dtype = plain.weight.dtype
        weight, factors = rounded(plain.weight.detach())
        self.weight = torch.nn.Parameter(weight.view(torch.uint8), requires_grad=False)
        self.register_parameter("bias", None)
        self.register_buffer("factors", factors.T.contiguous())
        # The product reads one of its sides by columns: in the backward pass that is this one.
        self.register_buffer("turned", weight.view(torch.uint8).T.contiguous() if weight.is_cuda else None)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.rounds_inputs:
            return torch.nn.functional.linear(input, self.plain_weight().to(input.dtype))
        values = input.reshape(-1, self.in_features)
        rows, scales = rounded(values.detach())
        turned = self.weight.T if self.turned is None else self.turned
        return _product(values, rows, scales, self.weight, turned, self.factors).unflatten(0, input.shape[:-1])

    def plain_weight(self) -> torch.Tensor:
        """What it computes with, as float32 [out, in]."""
        return self.weight.view(FLOAT8).float() * self.factors.T


@contextmanager
def unrounded_inputs(model: torch.nn.Module) -> Iterator[None]:
    """Only the weights of a model's float8 layers are rounded in the block, and products are of the inputs' type."""
    layers = [module for module in model.modules() if isinstance(module, Float8Linear)]
    for layer in layers:
        layer.rounds_inputs = False
    try:
        yield
    finally:
        for layer in layers:
            layer.rounds_inputs = True
