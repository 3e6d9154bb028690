"""What is loaded is what was meant: a Video-LLaVA, LoRA on its language model alone, an adapter that fits."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from builders.projects import ROOT
from builders.tokenizers import tokenizer_of
from cinetune import params as params_module
from cinetune.errors import InputError
from cinetune.model.base import answer_logits, check_frame_size, load_base
from cinetune.model.encoder import encoder_for
from cinetune.model.lookup import is_hub_id
from cinetune.model.lora import attach_lora, load_adapter, save_adapter
from cinetune.model.packing import collate, pack
from cinetune.params import ModelParams, TrainParams
from cinetune.pretraining import architecture

pytestmark = pytest.mark.training

PARAMS = params_module.load(ROOT / "params.yaml")
SIZE, NUM_FRAMES, LAYERS, WIDTH, INNER = 32, 2, 2, 64, 128
SMALL = dataclasses.replace(
    PARAMS.pretrain,
    hidden_size=WIDTH,
    intermediate_size=INNER,
    layers=LAYERS,
    heads=2,
    vision_hidden_size=64,
    vision_layers=2,
    patch_size=16,
)
TRAIN = dataclasses.replace(PARAMS.train, lora_rank=4, lora_alpha=8, lora_dropout=0.0)
PLAIN_NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CHOICES = ("the key", "the rope", "the lamp", "the map", "the ring")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base of random weights."""
    folder = tmp_path_factory.mktemp("model") / "base"
    tokenizer = tokenizer_of()
    torch.manual_seed(0)
    architecture.save(architecture.make_model(SMALL, SIZE, tokenizer), tokenizer, str(folder))
    return folder


@pytest.fixture
def broken(base: Path, tmp_path: Path) -> Path:
    """A copy of the base to be broken."""
    return Path(shutil.copytree(base, tmp_path / "base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved adapter that is not the identity."""
    folder = tmp_path_factory.mktemp("model") / "adapter"
    save_adapter(adapted_base(base), folder)
    return folder


@pytest.fixture
def altered(adapter: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, torch.Tensor]], Any]], Path]:
    """Copies of the adapter, their tensors changed in place."""

    def alter(change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
        folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return alter


def read(folder: Path | str, quantization: str = "none", dtype: str = "float32") -> tuple[Any, Any]:
    return load_base(ModelParams(str(folder), "", quantization, dtype), "cpu")


def adapted_base(base: Path, params: TrainParams = TRAIN) -> Any:
    torch.manual_seed(1)
    adapted = attach_lora(read(base)[0], params)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return adapted.eval()


@torch.inference_mode()
def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    """At the answer slots of two questions about one clip of noise."""
    encoder = encoder_for(model.config, tokenizer, NUM_FRAMES, 512)
    frames = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    suffixes = [encoder.suffix("What is wanted?", CHOICES), encoder.suffix("Where are they?", None)]
    item = pack(encoder.prefix("Take the lamp.")[0], suffixes, None, frames)
    return answer_logits(model, collate([item], tokenizer.pad_token_id, torch.float32, "cpu")).float()


def sentence(action: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    return text


# ---- the base


def test_the_base_comes_frozen_and_in_evaluation_mode(base: Path) -> None:
    model, tokenizer = read(base)
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert torch.isfinite(logits(model, tokenizer)).all()


@pytest.mark.parametrize("name", ["missing", "./missing", "/missing/model", "a/b/c", "~/model"])
def test_a_folder_that_is_not_there_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = sentence(lambda: read(name))
    assert repr(name) in message and "dvc pull base-model.dvc" in message


def test_what_is_no_file_here_and_has_one_slash_is_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models/mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    names = ["owner/name", "models/mine", "./name", "/name", "~/name", "name", "a/b/c", ""]
    assert [name for name in names if is_hub_id(name)] == ["owner/name"]


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    assert "config.json" in sentence(lambda: read(tmp_path))
    assert "config.json" in sentence(lambda: read(tmp_path / "notes.txt"))


@pytest.mark.parametrize(
    ("content", "kind"), [('{"model_type": "llama"}', "'llama'"), ("{}", "None"), ("[]", "None"), ("{", "None")]
)
def test_a_folder_with_another_kind_of_model_is_refused(broken: Path, content: str, kind: str) -> None:
    (broken / "config.json").write_text(content)
    message = sentence(lambda: read(broken))
    assert str(broken) in message and f"of type {kind}" in message and "'video_llava'" in message


def test_a_config_that_is_not_utf_8_is_refused(broken: Path) -> None:
    (broken / "config.json").write_bytes(b"\xff\xfe{}")
    assert str(broken) in sentence(lambda: read(broken))


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fill_with_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(1000))


@pytest.mark.parametrize("damage", [cut_in_half, fill_with_noise, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_damaged_base_is_refused(broken: Path, name: str, damage: Callable[[Path], Any]) -> None:
    damage(broken / name)
    assert str(broken) in sentence(lambda: read(broken))


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (self._path, "w")


def test_a_base_that_is_pickle_is_never_opened(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(broken / "opened")))
    assert "cannot be loaded" in sentence(lambda: read(broken))
    assert not (broken / "opened").exists()


def drop_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    tensors.pop(next(name for name in tensors if name.endswith("layers.0.self_attn.q_proj.weight")))


def widen_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("layers.0.self_attn.q_proj.weight"))
    tensors[name] = torch.zeros(2 * tensors[name].shape[0], tensors[name].shape[1], dtype=tensors[name].dtype)


@pytest.mark.parametrize("change", [drop_a_tensor, widen_a_tensor])
def test_a_base_whose_weights_do_not_fit_its_config_is_refused(
    broken: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    """transformers fills what is missing with random weights and only warns."""
    tensors = load_file(broken / "model.safetensors")
    change(tensors)
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    message = sentence(lambda: read(broken))
    assert str(broken) in message and ("lacks 1 tensors" in message or "cannot be loaded" in message)


def test_frames_of_another_size_than_the_base_sees_are_refused(base: Path) -> None:
    config = read(base)[0].config
    check_frame_size(config, SIZE)
    message = sentence(lambda: check_frame_size(config, 224))
    assert "frames.size is 224" in message and f"set frames.size to {SIZE}" in message


def test_the_prefix_has_as_many_video_tokens_as_the_model_makes_of_the_frames(base: Path) -> None:
    """Otherwise transformers refuses the batch: one more or fewer frame shows it."""
    model, tokenizer = read(base)
    encoder = encoder_for(model.config, tokenizer, NUM_FRAMES, 512)
    for count in (NUM_FRAMES, NUM_FRAMES + 1):
        frames = np.zeros((count, SIZE, SIZE, 3), dtype=np.uint8)
        item = pack(encoder.prefix("")[0], [encoder.suffix("What?", None)], None, frames)
        batch = collate([item], tokenizer.pad_token_id, torch.float32, "cpu")
        if count == NUM_FRAMES:
            assert answer_logits(model, batch).shape == (1, len(tokenizer))
        else:
            with pytest.raises(ValueError):
                answer_logits(model, batch)


# ---- NF4


def test_nf4_quantises_the_language_model_alone_and_stays_close(base: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    exact, tokenizer = read(base)
    quantised, _ = read(base, quantization="nf4")
    names = [name for name, module in quantised.named_modules() if isinstance(module, Linear4bit)]
    assert len(names) == 7 * LAYERS
    assert all(name.startswith("model.language_model.layers.") for name in names)
    quantised_types = {module.weight.quant_type for module in quantised.modules() if isinstance(module, Linear4bit)}
    assert quantised_types == {"nf4"}, "the library's own default is FP4"
    alike = torch.nn.functional.cosine_similarity(logits(exact, tokenizer), logits(quantised, tokenizer))
    # Random weights suffer more than trained ones, which have directions that matter.
    assert alike.min() > 0.8 and alike.max() < 0.9999


def test_an_adapter_goes_onto_a_quantised_base(base: Path, adapter: Path) -> None:
    plain, tokenizer = read(base, quantization="nf4")
    before = logits(plain, tokenizer)
    adapted = load_adapter(plain, adapter)
    exact = logits(load_adapter(read(base)[0], adapter), tokenizer)
    after = logits(adapted, tokenizer)
    alike = torch.nn.functional.cosine_similarity
    assert (alike(after, exact) > alike(before, exact) + 0.05).all(), "each answer comes nearer to the exact one"


# ---- LoRA


def test_lora_is_on_every_projection_of_the_language_model_and_on_nothing_else(base: Path) -> None:
    adapted = attach_lora(read(base)[0], TRAIN)
    trainable = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert all(".language_model.layers." in name for name in trainable)
    attention, mlp = 4 * (WIDTH + WIDTH), 3 * (WIDTH + INNER)
    assert sum(weight.numel() for weight in trainable.values()) == LAYERS * TRAIN.lora_rank * (attention + mlp)


def test_targets_named_by_their_last_part_would_leak_into_both_towers(base: Path) -> None:
    """Why the target is a pattern that begins at the language model: the towers' projections end alike."""
    leaky = get_peft_model(read(base)[0], LoraConfig(r=TRAIN.lora_rank, target_modules=PLAIN_NAMES))
    trainable = [name for name, weight in leaky.named_parameters() if weight.requires_grad]
    for tower in ("video_tower", "image_tower"):
        assert any(tower in name for name in trainable)
    own = attach_lora(read(base)[0], TRAIN)
    assert not any("tower" in name for name, weight in own.named_parameters() if weight.requires_grad)


def test_a_new_lora_changes_nothing_yet(base: Path) -> None:
    model, tokenizer = read(base)
    before = logits(model, tokenizer)
    assert torch.equal(logits(attach_lora(model, TRAIN).eval(), tokenizer), before)


# ---- adapters


def test_a_saved_adapter_gives_the_same_numbers(base: Path, tmp_path: Path) -> None:
    adapted = adapted_base(base)
    save_adapter(adapted, tmp_path / "adapter")
    plain, tokenizer = read(base)
    before = logits(plain, tokenizer)
    loaded = load_adapter(plain, tmp_path / "adapter")
    assert torch.equal(logits(loaded, tokenizer), logits(adapted, tokenizer))
    assert (logits(loaded, tokenizer) - before).abs().max() > 0.01
    assert not loaded.training


def test_an_adapter_saved_twice_is_the_same_files(base: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_adapter(adapted_base(base), tmp_path / name)
    held = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert held[0] == held[1]
    assert set(held[0]) == {"adapter_config.json", "adapter_model.safetensors"}


def first_key(tensors: dict[str, torch.Tensor]) -> str:
    return min(tensors)


def lose_a_key(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[first_key(tensors)]


def add_a_key(tensors: dict[str, torch.Tensor]) -> None:
    name = first_key(tensors)
    tensors[name.replace("layers.0", "layers.7")] = tensors[name].clone()


def rename_all_keys(tensors: dict[str, torch.Tensor]) -> None:
    """As in adapters of another class of model, which PEFT loads with a warning and no effect."""
    for name in list(tensors):
        tensors[name.replace("model.model.language_model.", "model.model.decoder.")] = tensors.pop(name)


def reshape_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    name = first_key(tensors)
    tensors[name] = torch.zeros(tensors[name].shape[0], tensors[name].shape[1] + 1)


def lose_everything(tensors: dict[str, torch.Tensor]) -> None:
    tensors.clear()


@pytest.mark.parametrize("change", [lose_a_key, add_a_key, rename_all_keys, reshape_a_tensor, lose_everything])
def test_an_adapter_whose_tensors_do_not_fit_is_refused(
    base: Path,
    altered: Callable[[Callable[[dict[str, torch.Tensor]], Any]], Path],
    change: Callable[[dict[str, torch.Tensor]], None],
) -> None:
    folder = altered(change)
    message = sentence(lambda: load_adapter(read(base)[0], folder))
    assert str(folder) in message and "does not fit the base model" in message


@pytest.mark.parametrize("has_older_names", [False, True])
def test_an_adapter_that_reaches_into_the_towers_loads_under_the_names_of_its_time(
    base: Path, tmp_path: Path, has_older_names: bool
) -> None:
    """LoRA by the last part of a name is in both vision towers too, as in the adapter that was published first."""
    model, tokenizer = read(base)
    plain = logits(model, tokenizer)
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config).eval()
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    right = logits(adapted, tokenizer)
    assert (right - plain).abs().max() > 1e-3
    save_adapter(adapted, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    assert any("video_tower" in name for name in tensors) and any("image_tower" in name for name in tensors)
    if has_older_names:
        older = {
            name.replace("model.model.language_model.", "model.language_model.model.")
            .replace("model.model.video_tower.", "model.video_tower.vision_model.")
            .replace("model.model.image_tower.", "model.image_tower.vision_model."): tensor
            for name, tensor in tensors.items()
        }
        assert not older.keys() & tensors.keys()
        save_file(older, path, metadata={"format": "pt"})
    again = logits(load_adapter(read(base)[0], tmp_path / "adapter"), tokenizer)
    torch.testing.assert_close(again, right, rtol=0, atol=1e-6)


def test_an_adapter_of_another_rank_than_its_config_says_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 2 * TRAIN.lora_rank}))
    assert "does not fit" in sentence(lambda: load_adapter(read(base)[0], folder))


def test_an_adapter_of_any_rank_is_loaded_with_its_own_config(base: Path, tmp_path: Path) -> None:
    adapted = adapted_base(base, dataclasses.replace(TRAIN, lora_rank=2, lora_alpha=64))
    save_adapter(adapted, tmp_path)
    model, tokenizer = read(base)
    assert torch.equal(logits(load_adapter(model, tmp_path), tokenizer), logits(adapted, tokenizer))


def test_an_adapter_of_another_base_is_refused(adapter: Path) -> None:
    tokenizer = tokenizer_of()
    for change in ({"layers": LAYERS + 1}, {"layers": LAYERS - 1}, {"hidden_size": 128}):
        other = architecture.make_model(dataclasses.replace(SMALL, **change), SIZE, tokenizer)
        assert "does not fit" in sentence(lambda other=other: load_adapter(other, adapter))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_lacks_a_part_is_no_adapter(base: Path, adapter: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    (folder / name).unlink()
    message = sentence(lambda: load_adapter(read(base)[0], folder))
    assert str(folder) in message and "adapter_config.json and adapter_model.safetensors" in message


@pytest.mark.parametrize("damage", [cut_in_half, fill_with_noise])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_adapter_is_refused(
    base: Path, adapter: Path, tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    damage(folder / name)
    assert str(folder) in sentence(lambda: load_adapter(read(base)[0], folder))


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"peft_type": "NONE"}', '{"peft_type": "PREFIX_TUNING"}'])
def test_an_adapter_config_of_another_kind_is_refused(base: Path, adapter: Path, tmp_path: Path, content: str) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    (folder / "adapter_config.json").write_text(content)
    message = sentence(lambda: load_adapter(read(base)[0], folder))
    assert str(folder) in message and "a LoRA adapter is needed" in message


def with_config(adapter: Path, target: Path, **changes: Any) -> Path:
    folder = Path(shutil.copytree(adapter, target))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"target_modules": ["q_proj"], "use_dora": True}, "is DoRA"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "whole modules beside it"),
        ({"target_modules": ["q_proj", "lm_head"]}, "a LoRA on lm_head"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "a LoRA on the embeddings"),
        ({"target_modules": ["fc1"], "bias": "lora_only"}, "trained biases"),
    ],
)
def test_an_adapter_that_is_more_than_plain_lora_is_refused_by_what_it_is(
    base: Path, tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    save_adapter(get_peft_model(read(base)[0], LoraConfig(r=2, **options)), tmp_path / "adapter")
    said = sentence(lambda: load_adapter(read(base)[0], tmp_path / "adapter"))
    assert named in said and str(tmp_path) in said and "only plain LoRA" in said


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"use_qalora": True}, "is a LoRA with use_qalora"),
        ({"alora_invocation_tokens": [5, 6]}, "is a LoRA with alora_invocation_tokens"),
        ({"something_of_a_later_version": {"k": 1}}, "is a LoRA with something_of_a_later_version"),
        ({"init_lora_weights": "pissa_niter_4"}, "is a LoRA beside a changed base (init_lora_weights=pissa_niter_4)"),
        ({"init_lora_weights": "olora"}, "is a LoRA beside a changed base"),
        ({"alpha_pattern": {"decoder.layers.0.self_attn.q_proj": 64}}, "in its alpha_pattern, and no layer"),
        ({"rank_pattern": {"nowhere": 8}}, "in its rank_pattern, and no layer"),
        ({"lora_alpha": float("nan")}, "holds NaN or inf"),
        ({"lora_alpha": "16"}, "does not fit the base model"),
        ({"r": None}, "does not fit the base model"),
        ({"r": 0}, "does not fit the base model"),
        ({"target_modules": "("}, "does not fit the base model"),
        ({"target_modules": 5}, "does not fit the base model"),
        ({"rank_pattern": [8]}, "does not fit the base model"),
    ],
    ids=str,
)
def test_an_adapter_whose_configuration_cannot_be_followed_is_refused(
    base: Path, adapter: Path, tmp_path: Path, setting: dict[str, Any], named: str
) -> None:
    folder = with_config(adapter, tmp_path / "adapter", **setting)
    said = sentence(lambda: load_adapter(read(base)[0], folder))
    assert named in said and str(folder) in said


def test_an_adapter_with_nan_is_refused(altered: Callable[..., Path], base: Path) -> None:
    folder = altered(lambda tensors: tensors[first_key(tensors)].fill_(float("nan")))
    assert "holds NaN or inf, first in" in sentence(lambda: load_adapter(read(base)[0], folder))


@pytest.mark.parametrize("has_older_names", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True, "lora_alpha": 6},
        {"rank_pattern": {"LAYER": 3}, "alpha_pattern": {"LAYER": 40}},
        {"layers_to_transform": [1], "init_lora_weights": "gaussian"},
        {"target_modules": ["LAYER"], "task_type": None},
        {"target_modules": ["q_proj", "fc1"], "exclude_modules": ["LAYER"], "task_type": "FEATURE_EXTRACTION"},
    ],
    ids=str,
)
def test_what_plain_lora_may_be_told_is_followed(
    base: Path, tmp_path: Path, options: dict[str, Any], has_older_names: bool
) -> None:
    """Ranks and scales of single layers, and layers by their whole names, also under those of older versions."""
    layer, older = "model.language_model.layers.1.self_attn.q_proj", "language_model.model.layers.1.self_attn.q_proj"
    given = json.loads(json.dumps({"r": 2, "target_modules": ["q_proj"]} | options).replace("LAYER", layer))
    model, tokenizer = read(base)
    adapted = get_peft_model(model, LoraConfig(**given)).eval()
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    right = logits(adapted, tokenizer)
    save_adapter(adapted, tmp_path / "adapter")
    if has_older_names:
        weights, config = (tmp_path / "adapter" / name for name in ("adapter_model.safetensors", "adapter_config.json"))
        tensors = load_file(weights)
        renamed = {
            name.replace("model.language_model.layers", "language_model.model.layers"): held
            for name, held in tensors.items()
        }
        save_file(renamed, weights, metadata={"format": "pt"})
        config.write_text(config.read_text(encoding="utf-8").replace(layer, older), encoding="utf-8")
    again = logits(load_adapter(read(base)[0], tmp_path / "adapter"), tokenizer)
    torch.testing.assert_close(again, right, rtol=0, atol=1e-6)


def test_an_adapter_of_another_base_of_the_hub_is_refused_by_both_names(
    base: Path, adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = with_config(adapter, tmp_path / "adapter", base_model_name_or_path="owner/one")
    model, _ = read(base)
    load_adapter(model, folder)
    assert "was made on owner/one" in caplog.text and str(base) in caplog.text, "a folder may hold any base"
    other, _ = read(base)
    other.config.name_or_path = "owner/other"
    said = sentence(lambda: load_adapter(other, folder))
    assert "'owner/one'" in said and "'owner/other'" in said and "model.base" in said
