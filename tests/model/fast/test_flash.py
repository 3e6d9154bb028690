"""Which kernels compute the attention of packs on a GPU, and that both kinds are asked for the same.

The kernels themselves are held to double precision in tests/model/test_gpu.py; here those of FlashAttention 4 are
played by the formulas that they compute.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from types import ModuleType
from typing import Any

import pytest
import torch

from cinetune.model import attention
from cinetune.model.fast import flash

pytestmark = pytest.mark.training

CPU = torch.device("cpu")
# What FlashAttention 4 calls its two passes.
FORWARD, BACKWARD = "_flash_attn_fwd", "_flash_attn_bwd"


def visible(queries: int, keys: int, borders: torch.Tensor | None) -> torch.Tensor:
    if borders is None:
        return torch.ones(queries, keys, dtype=torch.bool)
    owners = torch.repeat_interleave(borders.diff())
    return (owners[:, None] == owners).tril()


def shares(q: torch.Tensor, k: torch.Tensor, borders: torch.Tensor | None, scale: float) -> torch.Tensor:
    """[heads, queries, keys], as they are before the softmax."""
    scores = torch.einsum("qhw,khw->hqk", q, k.repeat_interleave(q.shape[1] // k.shape[1], 1)) * scale
    return scores.masked_fill(~visible(q.shape[0], k.shape[0], borders), -torch.inf)


def forward(q: Any, k: Any, v: Any, *, softmax_scale: float, causal: bool, return_lse: bool, **segments: Any) -> Any:
    borders = segments.get("cu_seqlens_q")
    assert return_lse and causal == (borders is not None)
    if borders is None:
        (q,), (k,), (v,) = q, k, v
    scores = shares(q.double(), k.double(), borders, softmax_scale)
    sums = scores.logsumexp(-1)
    values = v.double().repeat_interleave(q.shape[1] // v.shape[1], 1)
    mixed = torch.einsum("hqk,khw->qhw", (scores - sums[..., None]).exp(), values)
    found = mixed.to(q.dtype).contiguous(), sums.to(torch.promote_types(torch.float32, q.dtype))
    return (*(found if borders is not None else (one[None] for one in found)), None, None, None)


def backward(
    q: Any, k: Any, v: Any, out: Any, upper: Any, lse: Any, *, softmax_scale: float, causal: bool, **segments: Any
) -> Any:
    borders = segments.get("cu_seqlens_q")
    assert causal == (borders is not None)
    if borders is None:
        (q,), (k,), (v,), (out,), (upper,), (lse,) = q, k, v, out, upper, lse
    dtype, group = q.dtype, q.shape[1] // k.shape[1]
    q, k, v, out, upper, lse = (tensor.double() for tensor in (q, k, v, out, upper, lse))
    keys, values = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    parts = (shares(q, k, borders, softmax_scale) - lse[..., None]).exp()
    inner = torch.einsum("qhw,khw->hqk", upper, values) - (upper * out).sum(-1).T[..., None]
    slopes = parts * inner * softmax_scale
    grads = [
        torch.einsum("hqk,khw->qhw", slopes, keys),
        torch.einsum("hqk,qhw->khw", slopes, q).unflatten(1, (-1, group)).sum(2),
        torch.einsum("hqk,qhw->khw", parts, upper).unflatten(1, (-1, group)).sum(2),
    ]
    return tuple(grad.to(dtype) if borders is not None else grad.to(dtype)[None] for grad in grads)


@pytest.fixture
def interface(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """FlashAttention 4 as if it were installed, on a machine with Hopper's GPU."""
    fake: Any = ModuleType("flash_attn.cute.interface")
    vars(fake).update({FORWARD: forward, BACKWARD: backward})
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", fake)
    monkeypatch.setattr(metadata, "version", lambda _: flash.CHECKED)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    torchs: Any = ModuleType("torch's")
    vars(torchs).update({FORWARD: forward, BACKWARD: backward})
    right = flash.version_4(torchs)
    of_torch = flash.Kernels(flash.OF_TORCH.name, right.forward, right.backward)
    monkeypatch.setattr(flash, "OF_TORCH", of_torch)
    for cached in (flash.kernels_for, flash.installed):
        cached.cache_clear()
    yield fake
    for cached in (flash.kernels_for, flash.installed):
        cached.cache_clear()


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2)])
@pytest.mark.parametrize("lengths", [[5, 9, 1], []])
def test_products_joined_as_one_softmax_are_the_attention_of_separate_questions(
    interface: ModuleType, lengths: list[int], heads: int, key_heads: int
) -> None:
    torch.manual_seed(0)
    layout, total = attention.question_layout(lengths, 20), 20 + sum(lengths)
    shapes = [(1, count, total, 8) for count in (heads, key_heads, key_heads)]
    given = [torch.randn(shape, dtype=torch.double).requires_grad_() for shape in shapes]
    others = [tensor.detach().clone().requires_grad_() for tensor in given]
    right, _ = attention.shared_prefix_attention(torch.nn.Module(), *given, None, questions=layout)
    found = attention.in_parts(*(tensor[0].transpose(0, 1) for tensor in others), layout, 8**-0.5)[None]
    torch.testing.assert_close(found, right)
    wanted = torch.randn_like(right)
    found.backward(wanted)
    right.backward(wanted)
    for one, other in zip(others, given, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert chosen().name == f"FlashAttention {flash.CHECKED}"


def chosen() -> flash.Kernels:
    return flash.kernels_for(CPU, torch.bfloat16, 8, 1)


def missing(_: str) -> str:
    raise metadata.PackageNotFoundError


def without_functions(interface: Any) -> None:
    del vars(interface)[FORWARD]


def with_two_results(interface: Any) -> None:
    vars(interface)[BACKWARD] = lambda *given, **options: backward(*given, **options)[:2]


def with_other_arguments(interface: Any) -> None:
    vars(interface)[FORWARD] = lambda q, k, v: None


def with_wrong_gradients(interface: Any) -> None:
    vars(interface)[BACKWARD] = lambda *given, **options: tuple(1.05 * grad for grad in backward(*given, **options))


def with_what_is_no_number(interface: Any) -> None:
    vars(interface)[FORWARD] = lambda *given, **options: tuple(
        one if one is None else one * torch.nan for one in forward(*given, **options)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_functions, "fails with module"),
        (with_two_results, "fails with not enough values"),
        (with_other_arguments, "fails with"),
        (with_wrong_gradients, "differs by 0.05 where rounding explains 0.02"),
        (with_what_is_no_number, "differs by inf"),
    ],
)
def test_a_package_that_changed_gives_no_other_numbers_in_silence(
    interface: ModuleType, caplog: pytest.LogCaptureFixture, change: Callable[[Any], None], said: str
) -> None:
    change(interface)
    assert chosen() is flash.OF_TORCH and chosen() is flash.OF_TORCH
    [line] = caplog.messages
    assert line.startswith("attention: FlashAttention 2 of torch is used, for FlashAttention 4") and said in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": missing}, "version 4 is faster on this GPU: install cinetune[fast]"),
        ({"version": lambda _: "4.0.0b30"}, "flash-attn-4 4.0.0b30 is not 4.0.0b36"),
        ({"capability": (8, 9)}, "does not suit compute capability 8.9"),
        ({"module": None}, "flash-attn-4 cannot be imported"),
    ],
)
def test_where_version_4_cannot_be_used_one_line_says_why(
    interface: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, Any],
    said: str,
) -> None:
    caplog.set_level("INFO")
    if "version" in change:
        monkeypatch.setattr(metadata, "version", change["version"])
    if "capability" in change:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: change["capability"])
    if "module" in change:
        monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", None)
    assert chosen() is flash.OF_TORCH and flash.kernels_for(CPU, torch.float16, 8, 1) is flash.OF_TORCH
    [line] = caplog.messages
    assert said in line and "\n" not in line


def test_an_older_gpu_without_the_package_has_nothing_to_be_told(
    interface: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert chosen() is flash.OF_TORCH and not caplog.messages


def test_the_trial_draws_none_of_a_trainings_random_numbers(interface: ModuleType) -> None:
    state = torch.get_rng_state()
    chosen()
    assert torch.equal(torch.get_rng_state(), state)
