"""Products of float8 are near those of full precision, there and back, and go wherever a plain layer went."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.refusals import sentence
from builders.tokenizers import tokenizer_of
from cinetune import params as params_module
from cinetune.model import float8
from cinetune.model.base import answer_logits, load_base
from cinetune.model.encoder import encoder_for
from cinetune.model.lora import attach_lora, load_adapter, save_adapter
from cinetune.model.packing import collate, pack
from cinetune.params import ModelParams
from cinetune.pretraining import architecture
from cinetune.training import compilation

pytestmark = pytest.mark.training

PARAMS = params_module.load()
SMALL = dataclasses.replace(PARAMS.pretrain, hidden_size=64, intermediate_size=96, layers=2, heads=2)
TRAIN = dataclasses.replace(PARAMS.train, lora_dropout=0.0)
# A number of three binary places after the first is right to 1 in 16; sums of many, with signs, to about 1 in 37.
ONE, SUM = 1 / 16, 0.04


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float8") / "base"
    tokenizer = tokenizer_of()
    torch.manual_seed(0)
    architecture.save(architecture.make_model(SMALL, PARAMS.frames.size, tokenizer), tokenizer, str(folder))
    return folder


def read(base: Path, quantization: str) -> tuple[Any, Any]:
    return load_base(ModelParams(str(base), "", quantization, "float32"), "cpu")


def batch_of(model: Any, tokenizer: Any) -> dict[str, Any]:
    encoder = encoder_for(model.config, tokenizer, 2, 512)
    size = model.config.vision_config.image_size
    frames = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    asked = [encoder.suffix(text, None) for text in ("Who has it?", "What is the weather like?")]
    item = pack(encoder.prefix("Ana has the key.")[0], asked, [encoder.answer("Ana"), encoder.answer("rain")], frames)
    return collate([item], 0, torch.float32, "cpu")


def gradients(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    model.zero_grad()
    torch.nn.functional.cross_entropy(answer_logits(model, batch), batch["targets"]).backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def difference(found: torch.Tensor, right: torch.Tensor) -> float:
    return ((found - right).norm() / right.norm()).item()


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_each_row_keeps_its_own_range() -> None:
    values = random(4, 1000) * torch.tensor([1e-6, 1.0, 1e6, 0.0])[:, None]
    numbers, scales = float8.rounded(values)
    found = numbers.float() * scales
    largest = values.abs().amax(-1)
    torch.testing.assert_close(found.abs().amax(-1), largest)
    # Below the 2^-15th part of the largest there is not the precision of the others.
    precise = values.abs() > 2**-14 * largest[:, None]
    assert ((found - values).abs()[precise] <= ONE * values.abs()[precise]).all() and precise.sum() > 2900
    assert not found[3].any()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(number: float) -> None:
    """Else a training that has gone wrong would look like one that has not."""
    values = random(2, 16)
    values[1, 3] = number
    layer = float8.Float8Linear(torch.nn.Linear(16, 8, bias=False))
    found = layer(values)
    assert found[0].isfinite().all() and found[1].isnan().all()


def test_products_are_those_of_the_rounded_weights_there_and_back() -> None:
    plain = torch.nn.Linear(192, 96, bias=False)
    layer = float8.Float8Linear(plain)
    assert difference(layer.plain_weight(), plain.weight) < SUM
    values, grad = random(3, 50, 192).requires_grad_(), random(3, 50, 96)
    found = layer(values)
    assert found.shape == (3, 50, 96)
    assert 1e-3 < difference(found, values @ layer.plain_weight().T) < SUM
    found.backward(grad)
    assert 1e-3 < difference(values.grad, grad @ layer.plain_weight()) < SUM
    assert layer.weight.grad is None and layer(values.bfloat16()).dtype == torch.bfloat16


def test_a_layer_with_a_bias_is_refused() -> None:
    with pytest.raises(ValueError, match="bias"):
        float8.Float8Linear(torch.nn.Linear(16, 16))


def test_the_language_model_alone_is_rounded_and_stays_close(base: Path) -> None:
    exact, tokenizer = read(base, "none")
    model, _ = read(base, "fp8")
    names = [name for name, module in model.named_modules() if isinstance(module, float8.Float8Linear)]
    assert len(names) == 7 * SMALL.layers and all(".language_model.layers." in name for name in names)
    batch = batch_of(model, tokenizer)
    with torch.no_grad():
        assert 1e-3 < difference(answer_logits(model, batch), answer_logits(exact, batch)) < 0.2


def test_lora_learns_on_it_what_it_learns_on_the_exact_base(base: Path, tmp_path: Path) -> None:
    found = []
    for quantization in ("none", "fp8"):
        model, tokenizer = read(base, quantization)
        torch.manual_seed(1)
        adapted = attach_lora(model, TRAIN)
        for name, weight in adapted.named_parameters():
            if weight.requires_grad:
                assert weight.dtype == torch.float32
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
        found.append(gradients(adapted.train(), batch_of(model, tokenizer)))
    assert difference(found[1], found[0]) < 0.2
    save_adapter(adapted, tmp_path / "adapter")
    again = load_adapter(read(base, "fp8")[0], tmp_path / "adapter")
    batch = batch_of(again, tokenizer)
    with torch.no_grad():
        assert torch.equal(answer_logits(again, batch), answer_logits(adapted.eval(), batch))


@pytest.mark.slow
@pytest.mark.nightly
def test_compiled_layers_have_the_gradients_of_layers_left_alone(base: Path) -> None:
    model, tokenizer = read(base, "fp8")
    torch.manual_seed(1)
    adapted = attach_lora(model, TRAIN).train()
    batch = batch_of(model, tokenizer)
    plain = gradients(adapted, batch)
    compilation.prepare(adapted, True, 1)
    compiled = gradients(adapted, batch)
    compilation.restore(adapted)
    torch.compiler.reset()
    # Sums of another order fall on another side of a rounding here and there.
    assert difference(compiled, plain) < 0.15


def test_a_gpu_that_does_not_know_the_type_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    said = sentence(lambda: float8.check_device("cuda"))
    assert "model.quantization=fp8" in said and "8.9" in said and "8.0" in said
    float8.check_device("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    float8.check_device("cuda")
