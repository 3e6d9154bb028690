"""Questions about one clip, and a tiny model that answers them."""

from __future__ import annotations

import dataclasses

import torch

from builders.tokenizers import tokenizer_of
from cinetune import params as params_module
from cinetune.model.encoder import encoder_for
from cinetune.model.lora import attach_lora
from cinetune.pretraining import architecture
from cinetune.task.description import CINEPILE
from cinetune.task.questions import ClipQuestions, Question

SUBTITLES = "<subtitle> Ana has the red coat.\n<subtitle> It is the key that Bela wants."
QUESTIONS = (
    ("Whom does Ana meet?", ("Bela", "Cora", "Dario", "Edda", "Felix")),
    ("Where does the scene begin?", ("on the beach", "in the city", "at the castle", "on the farm", "in the desert")),
    ("What did Bela come for?", ("the key", "the rope", "the lamp", "the map", "the ring")),
)
CATEGORY = next(iter(CINEPILE.shorts))


def make_tiny(seed, dtype=torch.float32):
    """A random base whose words depend on what it reads, its LoRA moved away from the identity."""
    params = params_module.load()
    tokenizer = tokenizer_of(params.pretrain.vocab_size)
    torch.manual_seed(seed)
    model = architecture.make_model(params.pretrain, params.frames.size, tokenizer)
    model.requires_grad_(False)
    # Small random weights say the same to everything: larger ones make attention choose.
    for name, weight in model.named_parameters():
        if "language_model" in name and weight.ndim == 2:
            weight.mul_(4)
    adapted = attach_lora(model, dataclasses.replace(params.train, lora_dropout=0.0))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return adapted.to(dtype).eval(), encoder_for(model.config, tokenizer, params.frames.num_frames, 512)


def make_clips(count=2):
    questions = [
        Question(f"q{i}", text, choices, i, CATEGORY, "True", "1") for i, (text, choices) in enumerate(QUESTIONS)
    ]
    return [
        ClipQuestions(
            f"clip{number}",
            "Film (1999)",
            SUBTITLES,
            tuple(dataclasses.replace(q, question_id=f"{number}-{q.question_id}") for q in questions),
        )
        for number in range(count)
    ]
