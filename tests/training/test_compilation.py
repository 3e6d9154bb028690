"""Layers that are compiled or recomputed give the numbers of layers left alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from builders.refusals import sentence
from builders.tokenizers import tokenizer_of
from cinetune import params as params_module
from cinetune.model.base import answer_logits
from cinetune.model.encoder import encoder_for
from cinetune.model.lora import attach_lora
from cinetune.model.packing import Pack, collate, pack
from cinetune.model.sizes import kept_bytes
from cinetune.pretraining import architecture
from cinetune.training import compilation

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def adapted() -> torch.nn.Module:
    params = params_module.load()
    small = dataclasses.replace(params.pretrain, hidden_size=64, intermediate_size=96, layers=3, heads=2)
    torch.manual_seed(0)
    base = architecture.make_model(small, params.frames.size, tokenizer_of())
    model = attach_lora(base.requires_grad_(False), params.train)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model.train()


@pytest.fixture(scope="module")
def item(adapted: torch.nn.Module) -> Pack:
    encoder = encoder_for(adapted.config, tokenizer_of(), 2, 512)
    asked = [encoder.suffix(text, None) for text in ("Who has it?", "What is the weather like?")]
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    return pack(encoder.prefix("Ana has the key.")[0], asked, [encoder.answer("Ana"), encoder.answer("rain")], frames)


def gradients(model: torch.nn.Module, item: Pack) -> dict[str, torch.Tensor]:
    model.zero_grad()
    batch = collate([item], 0, torch.float32, "cpu")
    torch.nn.functional.cross_entropy(answer_logits(model, batch), batch["targets"]).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def kept(model: torch.nn.Module, item: Pack) -> int:
    """Numbers that are kept for the way back."""
    sizes: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    batch = collate([item], 0, torch.float32, "cpu")
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        answer_logits(model, batch)
    return sum(sizes)


@pytest.mark.parametrize("count", [1, 3])
def test_layers_that_are_computed_again_keep_less_and_give_the_same_gradients(
    adapted: torch.nn.Module, item: Pack, count: int
) -> None:
    plain, before = gradients(adapted, item), kept(adapted, item)
    compilation.prepare(adapted, False, count)
    again, after = gradients(adapted, item), kept(adapted, item)
    compilation.restore(adapted)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert after < before * (1 - 0.2 * count)
    assert kept(adapted, item) == before


def test_on_a_cpu_auto_leaves_the_layers_alone(adapted: torch.nn.Module) -> None:
    assert not compilation.wants_compiling("auto", torch.device("cpu"))
    assert compilation.num_recomputed(adapted, "auto", tokens=10**9) == 0
    assert compilation.num_recomputed(adapted, "all", tokens=1) == 3
    assert compilation.num_recomputed(adapted, "2", tokens=1) == 2


def test_automatic_checkpointing_leaves_as_many_layers_as_memory_holds(
    adapted: torch.nn.Module,
) -> None:
    """The rule of the GPU, with memory given: what one layer keeps, twice more for the one at work, and the inputs."""
    one = kept_bytes(1000, 64, 96, 4)
    inputs = 3 * 1000 * 64 * 4
    for fitting, left in ((0, 3), (1, 2), (2.5, 1), (3, 0), (99, 0)):
        assert compilation.count_to_recompute(3, one, inputs, int(inputs + (2 + fitting) * one)) == left


@pytest.mark.parametrize("wanted", ["some", "-1", "4", "1.5", ""])
def test_a_number_of_layers_that_the_base_does_not_have_is_refused(adapted: torch.nn.Module, wanted: str) -> None:
    said = sentence(lambda: compilation.num_recomputed(adapted, wanted, tokens=1))
    assert "auto, none, all" in said and repr(wanted) in said


def test_compiling_that_is_wanted_but_impossible_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no compiler was found")

    monkeypatch.setattr(torch, "compile", fail)
    assert "no compiler was found" in sentence(lambda: compilation.wants_compiling("true", torch.device("cpu")))
