"""The tiny base's tokenizer, model and card."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

from cinetune.data.mini import ask, story, talk
from cinetune.model.attention import IMPLEMENTATION
from cinetune.params import PretrainParams
from cinetune.pretraining import lessons
from cinetune.task import prompts

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>", "<video>")
MAX_POSITIONS = 4096


def make_tokenizer(vocab_size: int, seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE learned from the mini world's words: no text is unknown to it."""
    rng = np.random.default_rng(seed)
    corpus = ["\n".join(prompts.template().values())]
    for film_id in range(300):
        clip = story.make_clip(seed, story.make_film(seed, film_id, lessons.WORDS), 0)
        corpus += talk.lines(clip)
        for question in ask.candidates(clip, rng):
            corpus.append(lessons.exercise(question, lessons.FORMATS[rng.integers(len(lessons.FORMATS))], rng).suffix)
            corpus += [f" {question.answer}", lessons.binding(rng).suffix]
        told = [lessons.account(clip, person) for person in clip.talk.introduced]
        corpus += [item.suffix + item.answer for item in (lessons.description(clip), *told, lessons.roll_call(rng))]
    labels = (*lessons.NUMBERS, *lessons.LATER_LETTERS, *lessons.LETTERS)
    corpus += [f"ASSISTANT: {label}" for label in labels] * 200
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    bos = SPECIAL_TOKENS.index("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>", "<video>"],
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def make_model(
    params: PretrainParams, image_size: int, tokenizer: PreTrainedTokenizerFast
) -> VideoLlavaForConditionalGeneration:
    """A Video-LLaVA with random weights; torch's seed decides them."""
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=params.hidden_size,
        intermediate_size=params.intermediate_size,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.heads,
        max_position_embeddings=MAX_POSITIONS,
        # The default of 0.02 suits widths in the thousands: at this width, labels were not learned with it at all.
        initializer_range=params.hidden_size**-0.5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=params.vision_hidden_size,
        intermediate_size=4 * params.vision_hidden_size,
        num_hidden_layers=params.vision_layers,
        num_attention_heads=params.vision_hidden_size // 32,
        image_size=image_size,
        patch_size=params.patch_size,
    )
    config = VideoLlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        # The large model reads the tower's last layer but one; with so few layers none is given away.
        vision_feature_layer=-1,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = VideoLlavaForConditionalGeneration(config)
    model.set_attn_implementation(IMPLEMENTATION)
    return model


def save(model: VideoLlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: str) -> None:
    """The base as a folder; the image tower, which video never uses, gets the video tower's weights."""
    model.model.image_tower.load_state_dict(model.model.video_tower.state_dict())
    # A copy, for the training goes on; the head stays one tensor with the embedding.
    copy = VideoLlavaForConditionalGeneration(deepcopy(model.config))
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def card(metrics: dict[str, float]) -> dict[str, float]:
    """What the base can do on films that it has not seen, as shares of questions: those that people ask for."""
    names = {
        "open_accuracy": "open",
        "own_format_accuracy": "words_and_label",
        "own_label_only_accuracy": "label",
        "letter_binding_accuracy": "binding_A",
        "cinepile_format_accuracy": "cinepile_format",
    }
    return {name: round(metrics[f"held_out/{metric}"], 4) for name, metric in names.items()}
