"""What a base's own files say is compared before any weights are loaded: one sentence for what cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders.bases import SHARDS, older_name, write_real_layout
from builders.projects import ROOT, small_params
from builders.refusals import sentence
from cinetune import params as params_module
from cinetune.cli import parse
from cinetune.data.mini import dataset
from cinetune.model import shape
from cinetune.model.base import load_base
from cinetune.params import ModelParams
from cinetune.runtime import cost

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real_layout(tmp_path_factory.mktemp("bases") / "real")


@pytest.fixture
def broken(real: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(real, tmp_path / "base"))


def params(folder: Path, quantization: str = "none") -> ModelParams:
    return ModelParams(str(folder), "", quantization, "float32")


def change(folder: Path, name: str, changes: dict[str, Any], part: str = "") -> None:
    content = json.loads((folder / name).read_text())
    (content[part] if part else content).update(changes)
    (folder / name).write_text(json.dumps(content))


def refused(folder: Path) -> str:
    """The same sentence before a training and in its dry run."""
    said = sentence(lambda: load_base(params(folder), "cpu"))
    assert repr(str(folder)) in said and len(said) < 500
    return said


def test_a_base_in_the_real_layout_is_loaded_whole(real: Path) -> None:
    """Three shards under the names of older versions, with an index, in float16."""
    model, tokenizer = load_base(params(real), "cpu")
    held: dict[str, torch.Tensor] = {}
    for number in range(SHARDS):
        held |= load_file(real / f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors")
    for name, weight in model.named_parameters():
        assert torch.equal(weight, held[older_name(name)].float()), name
    assert tokenizer.convert_tokens_to_ids("<video>") == model.config.video_token_id == 32001


@pytest.mark.parametrize(
    ("part", "changes", "named"),
    [
        ("", {"vision_feature_select_strategy": "cls"}, ["vision_feature_select_strategy", "'default'"]),
        ("text_config", {"num_attention_heads": 3}, ["number of attention heads"]),
        ("vision_config", {"num_attention_heads": 3}, ["number of attention heads"]),
        ("text_config", {"rope_scaling": {"type": "foo"}}, ["rope_scaling.type='foo' is not known"]),
        ("text_config", {"hidden_act": "foo"}, ["text_config.hidden_act='foo' is not known"]),
        ("", {"torch_dtype": "float17"}, ["float17"]),
        ("text_config", {"hidden_size": "many"}, ["hidden_size", "many"]),
        ("text_config", {"num_hidden_layers": 10**9}, ["text_config.num_hidden_layers=1000000000"]),
        ("vision_config", {"num_hidden_layers": 0}, ["vision_config.num_hidden_layers=0"]),
        ("text_config", {"pad_token_id": 10**9}, ["Padding_idx"]),
        ("text_config", {"model_type": "mistral"}, ["text_config.model_type='mistral'", "'llama'"]),
        ("text_config", {"model_type": "foo"}, ["foo"]),
        ("vision_config", {"patch_size": 0}, ["config.json"]),
        ("", {"text_config": None}, ["no text_config"]),
        ("", {"vision_config": "big"}, ["no vision_config"]),
        ("", {"video_token_index": 32000}, ["32000 as its video token", "32001 for <video>"]),
        ("text_config", {"vocab_size": 32001}, ["has 32001 tokens", "ids up to 32002"]),
        ("", {"vision_feature_layer": -9}, ["layer -9", "has 3"]),
        ("", {"quantization_config": {"quant_method": "gptq"}}, ["saved quantised (gptq)", "model.quantization=none"]),
    ],
)
def test_a_config_that_makes_no_model_is_refused_by_what_it_says(
    broken: Path, part: str, changes: dict[str, Any], named: list[str]
) -> None:
    change(broken, "config.json", changes, part)
    said = refused(broken)
    assert all(words in said for words in named), said
    assert sentence(lambda: cost.base_shape(params(broken))) == said


def test_a_config_without_its_parts_is_refused_before_the_7bs_numbers_are_filled_in(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((broken / "config.json").read_text())
    del content["text_config"]
    (broken / "config.json").write_text(json.dumps(content))
    monkeypatch.setattr(shape.VideoLlavaConfig, "from_pretrained", None)
    assert "no text_config" in refused(broken)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("text_config", {"hidden_size": 128}),
        ("text_config", {"intermediate_size": 192}),
        ("vision_config", {"image_size": 336}),
        ("text_config", {"vocab_size": 32100}),
    ],
)
def test_weights_of_other_shapes_than_the_config_asks_for_are_refused_before_they_are_read(
    broken: Path, part: str, changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (broken / "preprocessor_config.json").unlink()
    change(broken, "config.json", changes, part)
    monkeypatch.setattr("cinetune.model.base.VideoLlavaForConditionalGeneration", None)
    said = refused(broken)
    assert "tensors have other shapes than its config.json asks for, first " in said


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_weights_of_more_layers_than_the_config_asks_for_are_refused(broken: Path, part: str) -> None:
    """They would make another, smaller model."""
    change(broken, "config.json", {"num_hidden_layers": 1}, part)
    change(broken, "config.json", {"vision_feature_layer": -1})
    assert "tensors that its config.json has no place for, first " in refused(broken)


def test_a_shard_that_lacks_a_tensor_is_refused_by_its_name(broken: Path) -> None:
    path = broken / "model-00002-of-00003.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if ".layers." in name)
    del tensors[name]
    save_file(tensors, path)
    assert "lacks 1 tensors" in refused(broken)


def damage_the_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{")


def lose_a_shard(folder: Path) -> None:
    (folder / "model-00003-of-00003.safetensors").unlink()


def lose_all_weights(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()


def cut_a_shard(folder: Path) -> None:
    path = folder / "model-00001-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_the_index, "no list of shards"),
        (lose_a_shard, "'model-00003-of-00003.safetensors'"),
        (lose_all_weights, "neither model.safetensors nor"),
        (cut_a_shard, "cannot be loaded"),
    ],
)
def test_a_base_that_lacks_weights_is_refused(broken: Path, damage: Callable[[Path], None], named: str) -> None:
    damage(broken)
    assert named in refused(broken)


def test_a_tokenizer_that_is_a_sentencepiece_file_alone_is_refused_with_the_remedy(broken: Path) -> None:
    """transformers makes one of three tokens of it without a word."""
    (broken / "tokenizer.json").rename(broken / "tokenizer.model")
    said = refused(broken)
    assert "no tokenizer.json" in said and "sentencepiece" in said and "save_pretrained" in said
    assert sentence(lambda: cost.base_shape(params(broken))) == said


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_mean": [0.5, 0.5, 0.5]}, "image_mean=[0.5, 0.5, 0.5]"),
        ({"image_std": [0.5, 0.5, 0.5]}, "image_std"),
        ({"crop_size": {"height": 336, "width": 336}}, "crop_size"),
        ({"size": {"shortest_edge": 336}}, "size"),
        ({"resample": 2}, "resample=2"),
        ({"do_normalize": False}, "do_normalize=False"),
        ({"rescale_factor": 1.0}, "rescale_factor=1.0"),
    ],
)
def test_a_base_whose_frames_are_prepared_in_another_way_is_refused(
    broken: Path, changes: dict[str, Any], named: str
) -> None:
    change(broken, "preprocessor_config.json", changes)
    assert named in refused(broken)


def test_a_processors_file_that_cannot_be_read_is_refused(broken: Path) -> None:
    (broken / "preprocessor_config.json").write_text("{")
    assert "preprocessor_config.json that cannot be read" in refused(broken)


def test_a_dry_run_refuses_positions_and_frames_that_the_base_does_not_know(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen frames of the 7B's are 4,112 tokens of video alone."""
    dataset.make(tmp_path / "data", params_module.from_dict(small_params()).mini, workers=1)
    asked = {"model": {"base": str(real)}, "data": {"root": str(tmp_path / "data")}}
    for frames, named in (
        ({"size": 224, "num_frames": 16}, ["(4112 of them the video's)", "knows 4096", "frames.num_frames"]),
        ({"size": 64, "num_frames": 2}, ["frames.size is 64", "224"]),
    ):
        small = params_module.from_dict(small_params(asked | {"frames": frames}))
        said = sentence(lambda small=small: cost.describe(small))
        assert all(words in said for words in named), said
    fitting = params_module.from_dict(small_params(asked | {"frames": {"size": 224, "num_frames": 2}}))
    monkeypatch.setattr(cost, "matrix_flops", lambda *_: 1e12)
    assert any(line.startswith("packs") for line in cost.describe(fitting))


def test_sixteen_frames_of_the_7b_are_refused_where_it_is_not_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = parse(["--params", "recipes/cinepile-7b.yaml"], "train", "").params
    recipe = recipe.override("model", {"base": "nobody/Video-LLaVA"}).override("frames", {"num_frames": 16})
    said = sentence(lambda: cost.describe(recipe))
    assert "(4112 of them the video's)" in said and "knows 4096" in said
