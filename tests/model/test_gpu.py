"""What only a GPU can show; needs torch, transformers and peft alone: `pytest -m gpu tests/model/test_gpu.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from builders.tokenizers import tokenizer_of
from cinetune import params as params_module
from cinetune.inference import graphs
from cinetune.inference.scoring import QuestionPrompt, answer, choose, read
from cinetune.model import attention, float8
from cinetune.model.base import answer_logits
from cinetune.model.encoder import Encoder, encoder_for
from cinetune.model.fast import flash, last_layer
from cinetune.model.lora import attach_lora
from cinetune.model.packing import Pack, collate, pack
from cinetune.pretraining import architecture
from cinetune.training import compilation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.training,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
# A product of two numbers in bfloat16 is right to about 2^-8.
NEAR = 1e-2
QUESTIONS = ("Who has the key?", "What is the weather like, and how does Ana feel about it?", "Where are they?")


def difference(found: torch.Tensor, right: torch.Tensor) -> float:
    return ((found.double() - right.double()).norm() / right.double().norm()).item()


@pytest.fixture(params=["FlashAttention 2", "FlashAttention 4"], ids=["fa2", "fa4"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each implementation of the products, whichever would be chosen."""
    if request.param == "FlashAttention 2":
        monkeypatch.setattr(flash, "kernels_for", lambda *_: flash.OF_TORCH)
    elif flash.installed(torch.device("cuda", 0)) is None:
        pytest.skip("FlashAttention 4 is not installed, or the GPU is an older one")
    return str(request.param)


def test_what_is_installed_is_what_is_used(kernels: str, caplog: pytest.LogCaptureFixture) -> None:
    found = flash.kernels_for(torch.device("cuda", 0), torch.bfloat16, 128, 1)
    assert found.name.startswith(kernels) and not [record for record in caplog.records if record.levelname != "INFO"]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("prefix", "lengths", "heads", "key_heads", "width"),
    [(70, [5, 33, 1], 4, 4, 32), (300, [160, 160, 77], 8, 2, 128), (40, [], 4, 4, 64), (2676, [160] * 32, 2, 2, 128)],
)
def test_flash_products_give_the_attention_of_separate_questions(
    prefix: int, lengths: Sequence[int], heads: int, key_heads: int, width: int
) -> None:
    torch.manual_seed(0)
    total = prefix + sum(lengths)
    layout = tuple(part.cuda() for part in attention.question_layout(list(lengths), prefix))
    shapes = [(1, count, total, width) for count in (heads, key_heads, key_heads)]
    halves = [torch.randn(shape, device="cuda").bfloat16().requires_grad_() for shape in shapes]
    doubles = [half.detach().double().requires_grad_() for half in halves]
    found, _ = attention.shared_prefix_attention(torch.nn.Module(), *halves, None, questions=layout)
    right, _ = attention.shared_prefix_attention(torch.nn.Module(), *doubles, None, questions=layout)
    assert difference(found, right) < NEAR
    wanted = torch.randn_like(right)
    found.backward(wanted.bfloat16())
    right.backward(wanted)
    for half, double in zip(halves, doubles, strict=True):
        assert difference(half.grad, double.grad) < NEAR


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoder_for(make("cpu", torch.float32).config, tokenizer_of(), 2, 512)


def make(device: str, dtype: torch.dtype) -> torch.nn.Module:
    params = params_module.load()
    small = dataclasses.replace(params.pretrain, hidden_size=128, intermediate_size=192, layers=3, heads=2)
    torch.manual_seed(0)
    base = architecture.make_model(small, params.frames.size, tokenizer_of())
    last_layer.narrow(base)
    model = attach_lora(base.requires_grad_(False).to(dtype), params.train)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model.to(device)


def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def make_pack(encoder: Encoder, questions: Sequence[str]) -> Pack:
    asked = [encoder.suffix(text, None) for text in questions]
    return pack(encoder.prefix("Ana has the key.")[0], asked, [encoder.answer("Ana")] * len(asked), frames())


def gradients(model: torch.nn.Module, item: Pack, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    batch = collate([item], 0, dtype, device)
    with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(answer_logits(model, batch).float(), batch["targets"])
    loss.backward()
    return {name: weight.grad.cpu() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("is_compiled", "recomputed"), [(False, 0), (True, 0), (True, 3)])
def test_a_pack_on_a_gpu_has_the_gradients_of_one_on_a_cpu(
    encoder: Encoder, is_compiled: bool, recomputed: int
) -> None:
    model = make("cuda", torch.bfloat16)
    # What was compiled for other tests counts against the number of versions of a layer.
    torch.compiler.reset()
    compilation.prepare(model, is_compiled, recomputed)
    # Lengths differ from pack to pack, and the layers are compiled for all of them.
    for questions in (QUESTIONS, QUESTIONS[:1], QUESTIONS[1:]):
        item = make_pack(encoder, questions)
        right = gradients(make("cpu", torch.float32), item, "cpu", torch.float32)
        found = gradients(model, item, "cuda", torch.bfloat16)
        assert found.keys() == right.keys()
        flat = [torch.cat([given[name].flatten() for name in sorted(given)]) for given in (found, right)]
        assert difference(*flat) < 5 * NEAR
    compilation.restore(model)


def test_a_training_step_waits_for_nothing_that_the_gpu_computes(encoder: Encoder) -> None:
    model = make("cuda", torch.bfloat16)
    item = make_pack(encoder, QUESTIONS)
    # What is found out once is found out here.
    gradients(model, item, "cuda", torch.bfloat16)
    batch = collate([item], 0, torch.bfloat16, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(answer_logits(model, batch).float(), batch["targets"])
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite().item()


@pytest.mark.usefixtures("kernels")
@torch.no_grad()
def test_questions_behind_a_kept_clip_have_the_probabilities_of_those_read_with_it(encoder: Encoder) -> None:
    model = make("cuda", torch.bfloat16).to(torch.bfloat16).eval()
    asked = [QuestionPrompt(text, ("a", "b", "c", "d", "e")) for text in QUESTIONS]
    kept = answer(model, encoder, read(model, encoder, "Ana has the key.", frames()), asked, max_new_tokens=1)
    (at_once,) = choose(model, encoder, [("Ana has the key.", frames(), asked)])
    for one, other in zip(kept, at_once, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=NEAR)


def test_words_of_a_graph_are_those_of_steps_taken_one_by_one(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = make("cuda", torch.float32).eval()
    asked = [QuestionPrompt(text, None) for text in QUESTIONS]
    said = []
    for is_graphed in (False, True, True):
        monkeypatch.setattr(graphs, "suit", lambda device, wanted=is_graphed: wanted)
        reading = read(model, encoder, "Ana has the key.", frames())
        said.append([item.raw for item in answer(model, encoder, reading, asked, max_new_tokens=12)])
    assert said[0] == said[1] == said[2] and not caplog.messages
    [step] = graphs.graphs_of(model.get_base_model()).steps.values()
    assert step.graph is not None


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < float8.LEAST_CAPABILITY,
    reason="the GPU does not multiply float8",
)
class TestFloat8:
    @pytest.mark.parametrize("tokens", [1, 7, 333])
    def test_products_on_a_gpu_are_those_of_a_cpu(self, tokens: int) -> None:
        torch.manual_seed(0)
        plain = torch.nn.Linear(256, 384, bias=False)
        values, grad = torch.randn(tokens, 256).bfloat16(), torch.randn(tokens, 384).bfloat16()
        found = []
        for device in ("cpu", "cuda"):
            layer = float8.Float8Linear(plain.to(device))
            given = values.detach().to(device).requires_grad_()
            mixed = layer(given)
            mixed.backward(grad.to(device))
            found.append((mixed.detach().cpu(), given.grad.cpu()))
        for one, other in zip(*found, strict=True):
            assert difference(other, one) < NEAR

    @pytest.mark.parametrize("is_compiled", [False, True])
    def test_gradients_are_near_those_of_full_precision(self, encoder: Encoder, is_compiled: bool) -> None:
        model = make("cuda", torch.bfloat16)
        rounded = make("cuda", torch.bfloat16)
        for module in rounded.modules():
            if hasattr(module, "base_layer"):
                module.base_layer = float8.Float8Linear(module.base_layer)
        torch.compiler.reset()
        compilation.prepare(rounded, is_compiled, 1)
        for questions in (QUESTIONS, QUESTIONS[:1]):
            item = make_pack(encoder, questions)
            right = gradients(model, item, "cuda", torch.bfloat16)
            found = gradients(rounded, item, "cuda", torch.bfloat16)
            assert found.keys() == right.keys()
            flat = [torch.cat([given[name].flatten() for name in sorted(given)]) for given in (found, right)]
            assert difference(*flat) < 0.2
