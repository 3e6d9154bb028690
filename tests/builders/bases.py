"""A base in the layout of the real one: three float16 shards under old names, its index, LLaMA's kind of tokenizer."""

from __future__ import annotations

import copy
import functools
import json
import re
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import LlamaTokenizer, VideoLlavaConfig, VideoLlavaForConditionalGeneration

from cinetune.data.mini import story, talk
from cinetune.task import prompts

SHARDS, LAYERS, WIDTH, VOCABULARY = 3, 2, 64, 32064
MARKERS = {"<image>": 32000, "<video>": 32001, "<pad>": 32002}
# What config.json says of itself.
NOT_GIVEN = ("architectures", "model_type", "torch_dtype", "transformers_version")
# Where the versions of transformers before 5 had what now stands elsewhere.
OLDER_NAMES = (
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.(video_tower|image_tower)\.(?!vision_model\.)", r"\1.vision_model."),
    (r"^model\.", ""),
)


@functools.cache
def sentencepiece_tokenizer() -> LlamaTokenizer:
    """Of LLaMA's kind: bytes for what it does not know, and a space before the first word. No test changes it."""
    corpus = [*prompts.template().values()] * 20
    for film in range(100):
        corpus += talk.lines(story.make_clip(3, story.make_film(3, film, story.FILM), 0))
    pieces = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    pieces.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    own = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    lines = [line for text in corpus for line in re.split(r"[\n{}]", text) if line]
    # As in SentencePiece no piece goes beyond a word.
    words = [word for line in lines for word in line.split(" ") if word]
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=own, initial_alphabet=list(string.printable.strip()), show_progress=False
    )
    pieces.train_from_iterator(words, trainer)
    content = json.loads(pieces.to_str())["model"]
    merges = [tuple(merge) for merge in content["merges"]]
    unused = {f"unused{number}": number for number in range(len(content["vocab"]), MARKERS["<image>"])}
    tokenizer = LlamaTokenizer(vocab=content["vocab"] | unused, merges=merges, add_bos_token=True, legacy=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<video>"]})
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert {name: tokenizer.convert_tokens_to_ids(name) for name in MARKERS} == MARKERS
    return tokenizer


def real_config(**changes: Any) -> dict[str, Any]:
    """config.json as the hub has it, but for the widths; `changes` to its top level."""
    text = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": VOCABULARY,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "model_type": "clip_vision_model",
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "patch_size": 14,
        "projection_dim": WIDTH,
        "vocab_size": 32000,
    }
    return {
        "architectures": ["VideoLlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_token_index": MARKERS["<image>"],
        "model_type": "video_llava",
        "pad_token_id": MARKERS["<pad>"],
        "projector_hidden_act": "gelu",
        "text_config": text,
        "torch_dtype": "float16",
        "transformers_version": "4.39.0.dev0",
        "video_token_index": MARKERS["<video>"],
        "vision_config": vision,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "vocab_size": VOCABULARY,
    } | changes


def older_name(name: str) -> str:
    """A tensor's name in files of the versions of transformers before 5."""
    for pattern, older in OLDER_NAMES:
        renamed = re.sub(pattern, older, name)
        if renamed != name and not renamed.startswith("model."):
            return renamed
    return name


def write_real_layout(folder: Path, seed: int = 0) -> Path:
    """Random weights of tiny widths in three shards, with all that lies beside them on the hub."""
    folder.mkdir(parents=True)
    content = real_config()
    torch.manual_seed(seed)
    config = VideoLlavaConfig(**{key: copy.deepcopy(value) for key, value in content.items() if key not in NOT_GIVEN})
    weights = VideoLlavaForConditionalGeneration(config).to(torch.float16).state_dict()
    tensors = {older_name(name): tensor.clone() for name, tensor in weights.items()}
    shard_of = {
        name: f"model-{number % SHARDS + 1:05d}-of-{SHARDS:05d}.safetensors" for number, name in enumerate(tensors)
    }
    for shard in set(shard_of.values()):
        held = {name: tensor for name, tensor in tensors.items() if shard_of[name] == shard}
        save_file(held, folder / shard, metadata={"format": "pt"})
    pictures = {
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "VideoLlavaImageProcessor",
        "processor_class": "VideoLlavaProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": 224},
    }
    generation = {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 32002}
    total = sum(tensor.nbytes for tensor in tensors.values())
    written = {
        "config.json": content,
        "generation_config.json": generation,
        "preprocessor_config.json": pictures,
        "model.safetensors.index.json": {"metadata": {"total_size": total}, "weight_map": shard_of},
    }
    for name, held in written.items():
        (folder / name).write_text(json.dumps(held, indent=2) + "\n", encoding="utf-8")
    sentencepiece_tokenizer().save_pretrained(folder)
    return folder
