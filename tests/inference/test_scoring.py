"""Questions answered together get the answers that they get alone."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from builders.packs import QUESTIONS, SUBTITLES, make_tiny
from cinetune.inference import graphs, scoring
from cinetune.inference.scoring import QuestionPrompt, answer, choose, read, reply
from cinetune.model.packing import collate, pack
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.evaluation

ASKED = [*(QuestionPrompt(*question) for question in QUESTIONS), QuestionPrompt("Where does the scene end?", None)]


@pytest.fixture(scope="module")
def tiny():
    return make_tiny(0)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def alone(model, encoder, frames, asked, max_new_tokens):
    """The ordinary way: one question, transformers' own generation, no mask or positions of ours."""
    item = pack(encoder.prefix(SUBTITLES)[0], [encoder.suffix(asked.question, asked.choices)], None, frames)
    dtype = model.get_input_embeddings().weight.dtype
    batch = collate([item], 0, dtype, "cpu")
    ids = batch["input_ids"]
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values_videos=batch["pixel_values_videos"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    logits = out.logits[0][0].float()
    shares = torch.softmax(logits[encoder.letters()], -1)
    mass = torch.softmax(logits, -1)[encoder.letters()].sum()
    return encoder.decode(out.sequences[0, ids.shape[1] :].tolist()), shares.numpy(), float(mass)


@pytest.fixture(params=["growing", "fixed"])
def cache(request, monkeypatch):
    """Words behind a cache that grows, as on a CPU, and behind one of a fixed length, as on a GPU."""
    monkeypatch.setattr(graphs, "suit", lambda device: request.param == "fixed")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_pack_of_answers_equals_separate_generation(seed, frames):
    model, encoder = make_tiny(seed)
    together = reply(model, encoder, SUBTITLES, frames, ASKED, 12)
    separate = [alone(model, encoder, frames, asked, 12) for asked in ASKED]
    assert [item.raw for item in together] == [raw for raw, _, _ in separate]
    assert len({item.raw for item in together}) > 1, "a model that says one thing to all proves nothing"
    for item, (_, shares, mass) in zip(together[:3], separate, strict=False):
        np.testing.assert_allclose(item.probabilities, shares, atol=1e-5)
        assert item.letter_mass == pytest.approx(mass, rel=1e-4) and 0 < mass < 1
    assert all(math.isnan(item.letter_mass) for item, asked in zip(together, ASKED, strict=True) if not asked.choices)


@pytest.mark.usefixtures("cache")
def test_questions_that_end_early_leave_the_others_alone(tiny, frames):
    """The end token is made whatever one question says third, so that answers stop at different steps."""
    model, encoder = tiny
    free = reply(model, encoder, SUBTITLES, frames, ASKED, 6)
    tokenizer = encoder.tokenizer
    lengths = set()
    for end in {tokenizer(f"x {item.raw}", add_special_tokens=False).input_ids[3] for item in free}:
        words = [_until(tokenizer, model, encoder, frames, asked, end) for asked in ASKED]
        stopping = dataclasses.replace(encoder, tokenizer=_Ending(tokenizer, end))
        found = reply(model, stopping, SUBTITLES, frames, ASKED, 6)
        assert [item.raw for item in found] == words
        lengths |= {len(word) for word in words}
    assert len(lengths) > 2


class _Ending:
    """A tokenizer with another end token."""

    def __init__(self, tokenizer, end):
        self._tokenizer, self.eos_token_id = tokenizer, end

    def __call__(self, *args, **kwargs):
        return self._tokenizer(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


def _until(tokenizer, model, encoder, frames, asked, end):
    """One question alone, its pack read anew for every token."""
    suffix, ids = encoder.suffix(asked.question, asked.choices), []
    for _ in range(6):
        item = pack(encoder.prefix(SUBTITLES)[0], [[*suffix, *ids]], None, frames)
        batch = collate([item], 0, torch.float32, "cpu")
        with torch.inference_mode():
            out = model(input_ids=batch["input_ids"], pixel_values_videos=batch["pixel_values_videos"])
        token = int(out.logits[0, -1].argmax())
        if token == end:
            break
        ids.append(token)
    return encoder.decode(ids)


def test_order_of_questions_does_not_matter(tiny, frames):
    model, encoder = tiny
    forward = reply(model, encoder, SUBTITLES, frames, ASKED, 8)
    backward = reply(model, encoder, SUBTITLES, frames, ASKED[::-1], 8)[::-1]
    assert [item.raw for item in forward] == [item.raw for item in backward]
    for one, other in zip(forward[:3], backward[:3], strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_open_questions_have_no_probabilities_and_no_letter(tiny, frames):
    model, encoder = tiny
    choice, open_question = reply(model, encoder, SUBTITLES, frames, [ASKED[0], ASKED[3]], 2)
    assert sum(choice.probabilities) == pytest.approx(1) and choice.letter in CINEPILE.letters
    assert open_question.probabilities is None and open_question.letter is None


def test_a_model_in_bfloat16_answers(frames):
    model, encoder = make_tiny(0, torch.bfloat16)
    replies = reply(model, encoder, SUBTITLES, frames, ASKED, 4)
    assert len(replies) == len(ASKED) and all(item.raw for item in replies)


def test_nothing_asked_gives_nothing(tiny, frames):
    assert reply(*tiny, SUBTITLES, frames, [], 4) == []


def test_a_question_that_nobody_waits_for_any_more_ends_early_and_the_others_go_on(tiny, frames):
    whole = reply(*tiny, SUBTITLES, frames, ASKED, 8)
    asked_about = []

    def is_wanted(number):
        asked_about.append(number)
        return number != 1

    found = answer(*tiny, read(*tiny, SUBTITLES, frames), ASKED, 8, is_wanted)
    assert [found[i] for i in (0, 2, 3)] == [whole[i] for i in (0, 2, 3)]
    assert whole[1].raw.startswith(found[1].raw) and len(found[1].raw) < len(whole[1].raw)
    assert asked_about.count(1) == 1 and asked_about.count(0) > 1


def test_each_question_may_have_its_own_number_of_words(tiny, frames):
    whole = reply(*tiny, SUBTITLES, frames, ASKED, 8)
    found = answer(*tiny, read(*tiny, SUBTITLES, frames), ASKED, [8, 0, 1, 8])
    assert found[0] == whole[0] and found[1].raw == "" and found[2].raw != whole[2].raw
    assert found[1].probabilities == whole[1].probabilities


def test_a_clip_that_was_read_before_gives_the_same_answers_again(tiny, frames):
    whole = reply(*tiny, SUBTITLES, frames, ASKED, 8)
    kept = read(*tiny, SUBTITLES, frames)
    before = [layer.keys.clone() for layer in kept.cache.layers]
    again = read(*tiny, SUBTITLES, frames)
    for asked, expected in ((ASKED, whole), (ASKED[:1], whole[:1]), (ASKED[2:], whole[2:])):
        for reading in (kept.copy(), again):
            found = answer(*tiny, reading, asked, 8)
            assert [item.raw for item in found] == [item.raw for item in expected]
            for one, other in zip(found, expected, strict=True):
                assert one.probabilities is None or np.allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert all(torch.equal(keys, layer.keys) for keys, layer in zip(before, kept.cache.layers, strict=True))


def test_a_reading_gives_the_same_to_every_pack_that_follows(tiny, frames):
    reading = scoring.read(*tiny, SUBTITLES, frames)
    first = scoring.answer(*tiny, reading, ASKED, 8)
    scoring.answer(*tiny, reading, ASKED[:1], 3)
    assert scoring.answer(*tiny, reading, ASKED, 8) == first == reply(*tiny, SUBTITLES, frames, ASKED, 8)


def test_options_are_chosen_clip_after_clip_as_in_answers_with_words(tiny, frames):
    """Of clips with different frames, subtitles and questions, the next always made while one is read."""
    clips = [(SUBTITLES, frames, ASKED[:3]), ("", frames[::-1].copy(), ASKED[1:2]), (SUBTITLES, frames, ASKED[:1])]
    whole = [reply(*tiny, *clip, 1) for clip in clips]
    found = list(choose(*tiny, iter(clips)))
    assert [len(replies) for replies in found] == [3, 1, 1]
    for replies, expected in zip(found, whole, strict=True):
        for one, other in zip(replies, expected, strict=True):
            assert one.raw == ""
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert list(choose(*tiny, [])) == []


def test_a_clip_that_cannot_be_read_ends_the_choosing_with_its_own_error(tiny, frames):
    def clips():
        yield SUBTITLES, frames, ASKED[:1]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(choose(*tiny, clips()))


def test_a_clip_is_made_ready_while_the_one_before_is_read_and_no_further(tiny, frames):
    """Given up after two clips' replies: by then the third is read, and the fourth is ready."""
    taken = []

    def clips():
        for number in range(5):
            taken.append(number)
            yield SUBTITLES, frames, ASKED[: 1 + number % 3]

    choosing = choose(*tiny, clips())
    assert [len(replies) for replies in (next(choosing), next(choosing))] == [1, 2]
    choosing.close()
    assert taken == [0, 1, 2, 3]
