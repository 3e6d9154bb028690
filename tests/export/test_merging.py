"""Merging adds an adapter to its weights once, in float32, and never to weights that are quantised."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from builders.exports import params_of, write_adapter, write_tiny_base
from builders.refusals import sentence
from cinetune.export import merging
from cinetune.model.base import load_base
from cinetune.model.lora import load_adapter
from cinetune.params import ModelParams, Params

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    root = tmp_path_factory.mktemp("merging")
    write_tiny_base(root)
    params = params_of(root)
    write_adapter(params, root / "adapter")
    return root, params


def adapted(made: tuple[Path, Params], **model: Any) -> Any:
    params: ModelParams = made[1].override("model", model).model
    return load_adapter(load_base(params, "cpu")[0], made[0] / "adapter")


def test_in_float32_it_is_what_peft_merges(made: tuple[Path, Params]) -> None:
    theirs = adapted(made).merge_and_unload().state_dict()
    ours = merging.merge(adapted(made)).state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=1e-6)
    assert not any("lora" in name for name in ours)


def test_each_sum_is_rounded_once(made: tuple[Path, Params]) -> None:
    model = adapted(made, dtype="bfloat16")
    layer = copy.deepcopy(model.base_model.model.model.language_model.layers[0].self_attn.q_proj)
    merged = merging.merge(model).model.language_model.layers[0].self_attn.q_proj.weight
    down, up = layer.lora_A["default"].weight.float(), layer.lora_B["default"].weight.float()
    exact = layer.base_layer.weight.float() + layer.scaling["default"] * (up @ down)
    assert torch.equal(merged, exact.to(torch.bfloat16))
    assert not torch.equal(merged, layer.base_layer.weight)


def test_the_base_beside_it_stays_as_it_is(made: tuple[Path, Params]) -> None:
    base = load_base(made[1].model, "cpu")[0].state_dict()
    merged = merging.merge(adapted(made)).state_dict()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed and all(".language_model.layers." in name for name in changed)


def test_quantised_weights_are_not_merged_into(made: tuple[Path, Params]) -> None:
    with pytest.raises(AssertionError, match="quantised"):
        merging.merge(adapted(made, quantization="nf4"))


def test_a_sum_beyond_the_range_of_its_type_is_refused(made: tuple[Path, Params]) -> None:
    model = adapted(made, dtype="float16")
    layer = model.base_model.model.model.language_model.layers[1].mlp.up_proj
    with torch.no_grad():
        layer.lora_A["default"].weight.fill_(30000)
        layer.lora_B["default"].weight.fill_(1)
    told = sentence(lambda: merging.merge(model))
    assert "float16" in told and "mlp.up_proj" in told
