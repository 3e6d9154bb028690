"""A pack gives the numbers of separate passes."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from builders.packs import QUESTIONS, SUBTITLES
from builders.tokenizers import tokenizer_of
from cinetune import params as params_module
from cinetune.model.attention import IMPLEMENTATION, SHARED_PREFIX, question_layout
from cinetune.model.base import answer_logits, embedded
from cinetune.model.encoder import encoder_for
from cinetune.model.fast import last_layer
from cinetune.model.lora import attach_lora
from cinetune.model.packing import collate, model_inputs, normalise, pack, pieces, stack, training_pack, weights
from cinetune.pretraining import architecture
from cinetune.task.description import CINEPILE
from cinetune.task.questions import ClipQuestions, Question

pytestmark = pytest.mark.training


@pytest.fixture(scope="module", params=["sdpa", SHARED_PREFIX])
def attention(request):
    return request.param


@pytest.fixture(scope="module")
def tiny(attention):
    """A base of the project's own kind with random weights, its LoRA moved away from the identity."""
    params = params_module.load()
    tokenizer = tokenizer_of(params.pretrain.vocab_size)
    torch.manual_seed(0)
    model = architecture.make_model(params.pretrain, params.frames.size, tokenizer)
    model.requires_grad_(False)
    model.set_attn_implementation(IMPLEMENTATION | {"text_config": attention})
    adapted = attach_lora(model, dataclasses.replace(params.train, lora_dropout=0.0))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return adapted.eval(), encoder_for(model.config, tokenizer, params.frames.num_frames, 512)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def make_pack(encoder, frames, chosen, with_answers=True):
    suffixes = [encoder.suffix(*QUESTIONS[i]) for i in chosen]
    answers = [encoder.answer(CINEPILE.letters[i]) for i in chosen] if with_answers else None
    return pack(encoder.prefix(SUBTITLES)[0], suffixes, answers, frames)


def batch_of(attention, item):
    """The pack as the model's attention wants it: with its questions' layout, or with a dense mask."""
    batch = collate([item], 0, torch.float32, "cpu")
    if attention == SHARED_PREFIX:
        return batch
    del batch["questions"]
    return batch | model_inputs(stack([item], 0), torch.float32, "cpu")


def lora_gradients(model, attention, packs):
    """Logits of all slots and the gradient of the loss summed over questions."""
    model.zero_grad()
    logits = []
    for item in packs:
        batch = batch_of(attention, item)
        out = answer_logits(model, batch)
        losses = torch.nn.functional.cross_entropy(out, batch["targets"], reduction="none")
        (losses * weights([item])).sum().backward()
        logits.append(out.detach())
    return torch.cat(logits), {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}


def test_pack_equals_separate_passes_in_logits_and_gradients(tiny, attention, frames):
    model, encoder = tiny
    together, packed = lora_gradients(model, attention, [make_pack(encoder, frames, (0, 1, 2))])
    alone, separate = lora_gradients(model, attention, [make_pack(encoder, frames, (i,)) for i in range(3)])
    assert (together - alone).abs().max() < 1e-5
    largest = max(gradient.abs().max() for gradient in separate.values())
    assert largest > 1e-4
    assert packed.keys() == separate.keys()
    for name, gradient in separate.items():
        assert (packed[name] - gradient).abs().max() / largest < 1e-5, name


def test_a_last_layer_that_is_told_of_answers_equals_separate_passes_in_logits_and_gradients(tiny, attention, frames):
    model, encoder = tiny
    if attention != SHARED_PREFIX:
        pytest.skip("a dense mask brings no layout")
    alone, separate = lora_gradients(model, attention, [make_pack(encoder, frames, (i,)) for i in range(3)])
    last_layer.narrow(model.get_base_model())
    layer = model.get_base_model().model.language_model.layers[-1]
    assert type(layer) is last_layer.AnswerLayer
    item = make_pack(encoder, frames, (0, 1, 2))
    batch = batch_of(attention, item)
    told = batch | {"answers": batch["slots"]}
    model.zero_grad()
    rows = []
    kept = layer.mlp.register_forward_hook(lambda module, given, made: rows.append(made.shape[1]))
    together = answer_logits(model, told)
    kept.remove()
    assert rows == [len(item.slots)]
    losses = torch.nn.functional.cross_entropy(together, batch["targets"], reduction="none")
    (losses * weights([item])).sum().backward()
    packed = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert (together - alone).abs().max() < 1e-5
    largest = max(gradient.abs().max() for gradient in separate.values())
    assert packed.keys() == separate.keys()
    for name, gradient in separate.items():
        assert (packed[name] - gradient).abs().max() / largest < 1e-5, name


def test_embeddings_that_wait_for_nothing_are_the_models_own(tiny, attention, frames):
    model, encoder = tiny
    batch = batch_of(attention, make_pack(encoder, frames, (0, 1)))
    own = []
    hook = model.get_base_model().model.language_model.register_forward_pre_hook(
        lambda module, given, options: own.append(options["inputs_embeds"]), with_kwargs=True
    )
    answer_logits(model, batch)
    hook.remove()
    assert torch.equal(embedded(model, batch["input_ids"], batch), own[0])
    without = pack(encoder.with_video("<video>")[:1], [encoder.suffix("Who?", None)], None, None)
    ids = torch.from_numpy(without.input_ids)[None]
    assert torch.equal(embedded(model, ids, {}), model.get_input_embeddings()(ids))
    with pytest.raises(RuntimeError, match="video tokens"):
        embedded(model, ids, batch)


def test_a_last_layer_of_another_make_is_left_as_it_is(tiny):
    base = tiny[0].get_base_model()
    layer = base.model.language_model.layers[-1]
    held, layer.__class__ = layer.__class__, type("Another", (LlamaDecoderLayer,), {})
    last_layer.narrow(base)
    assert type(layer).__name__ == "Another"
    layer.__class__ = held


def test_separate_pass_equals_separate_causal_pass_without_any_mask(tiny, attention, frames):
    """The reference itself is the model's ordinary causal pass: no mask or positions of ours."""
    model, encoder = tiny
    item = make_pack(encoder, frames, (1,))
    batch = batch_of(attention, item)
    plain = model(input_ids=batch["input_ids"], pixel_values_videos=batch["pixel_values_videos"]).logits[0]
    assert (plain[batch["slots"]] - answer_logits(model, batch)).abs().max() < 1e-5


def test_questions_are_laid_out_in_a_batch_of_their_own():
    positions, places, borders = question_layout([2, 3, 1], start=10)
    assert positions.tolist() == [[10, 11, 11], [12, 13, 14], [15, 15, 15]]
    assert places.tolist() == [0, 1, 3, 4, 5, 6]
    assert borders.tolist() == [0, 10, 12, 15, 16]


def test_a_mask_for_one_that_uses_masks_is_refused_rather_than_ignored(tiny, attention, frames):
    model, encoder = tiny
    batch = collate([make_pack(encoder, frames, (0, 1))], 0, torch.float32, "cpu")
    if attention == SHARED_PREFIX:
        assert answer_logits(model, batch).isfinite().all()
    else:
        with pytest.raises(RuntimeError):
            answer_logits(model, batch)


def test_a_question_does_not_see_its_siblings(tiny, attention, frames):
    model, encoder = tiny
    first = answer_logits(model, batch_of(attention, make_pack(encoder, frames, (0, 1), False)))
    other = answer_logits(model, batch_of(attention, make_pack(encoder, frames, (0, 2), False)))
    assert (first[0] - other[0]).abs().max() < 1e-5
    assert (first[1] - other[1]).abs().max() > 1e-3


def test_padded_batch_equals_packs_passed_singly(tiny, attention, frames):
    model, encoder = tiny
    packs = [make_pack(encoder, frames, (0,)), make_pack(encoder, frames, (0, 1, 2))]
    together = answer_logits(model, collate(packs, 0, torch.float32, "cpu"))
    singly = torch.cat([answer_logits(model, batch_of(attention, item)) for item in packs])
    assert (together - singly).abs().max() < 1e-5


def test_every_question_weighs_the_same_whatever_its_answers_length(tiny, frames):
    _, encoder = tiny
    suffixes = [encoder.suffix(*QUESTIONS[0]), encoder.suffix(QUESTIONS[1][0], None)]
    item = pack(encoder.prefix(SUBTITLES)[0], suffixes, [encoder.answer("A"), encoder.answer("on the beach")], frames)
    shares = np.bincount(item.owners, weights=weights([item]).numpy())
    assert len(item.slots) > 4
    np.testing.assert_allclose(shares, 1.0, rtol=1e-6)


def test_answer_is_the_letter_and_the_end_token_alone(tiny, frames):
    _, encoder = tiny
    item = make_pack(encoder, frames, (2,))
    tokenizer = encoder.tokenizer
    assert tokenizer.decode(item.targets) == " C</s>"
    assert tokenizer.decode(item.input_ids[item.slots[0]]) == ":"


def test_long_subtitles_lose_their_end_and_nothing_else_is_cut(tiny):
    _, encoder = tiny
    short = dataclasses.replace(encoder, max_subtitle_tokens=5)
    ids, dropped = short.prefix(SUBTITLES)
    whole, none_dropped = encoder.prefix(SUBTITLES)
    assert none_dropped == 0 and dropped == len(whole) - len(ids) > 0
    assert ids.count(encoder.video_token_id) == encoder.num_video_tokens
    assert encoder.prefix("")[0][-1] == ids[-1]


def test_pieces_of_a_clip_are_of_even_length():
    assert [len(piece) for piece in pieces(list(range(33)), 16)] == [11, 11, 11]
    assert [len(piece) for piece in pieces(list(range(16)), 16)] == [16]


def test_questions_asked_in_words_are_answered_with_the_right_options_text(tiny, frames):
    _, encoder = tiny
    question = Question("q-000", *QUESTIONS[1], 2, "Temporal", "False", "1")
    clip = ClipQuestions("c", "Film (2000)", SUBTITLES, (question,))
    item = training_pack(encoder, clip, [question], frames, in_words=[question])
    said = [encoder.tokenizer.decode(item.targets[item.owners == number]) for number in range(2)]
    assert said == [" C</s>", " at the castle</s>"]


def test_normalised_pixels_have_clip_mean_and_deviation():
    frames = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    result = normalise(frames)
    assert result.shape == (1, 3, 1, 1) and result.dtype == torch.float32
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    expected = (np.array([0, 128 / 255, 1]) - mean) / deviation
    np.testing.assert_allclose(result.ravel(), expected, rtol=1e-5)
