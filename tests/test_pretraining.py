"""The tiny base: it can read anything, its exercises are true, and it never meets CinePile's format."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cinetune import params as params_module
from cinetune import pretraining, prompts
from cinetune.frames import FrameSettings
from cinetune.mini import ask, lessons, talk
from cinetune.mini.lessons import Exercise
from cinetune.model import encoder_for, load_base
from cinetune.packing import Encoder
from cinetune.params import ModelParams, PretrainParams

pytestmark = pytest.mark.training

ROOT = Path(__file__).resolve().parents[1]
PARAMS = params_module.load(ROOT / "params.yaml")
SETTINGS = FrameSettings("shots", num_frames=2, size=32, cut_threshold=30.0, min_shot_frames=8)
SMALL = dataclasses.replace(
    PARAMS.pretrain,
    films=2,
    clips_per_film=2,
    drill_steps=2,
    text_steps=2,
    apart_steps=2,
    steps=2,
    clips_per_step=2,
    hidden_size=64,
    intermediate_size=64,
    layers=1,
    heads=2,
    vision_hidden_size=32,
    vision_layers=1,
    patch_size=16,
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = pretraining.make_tokenizer(PARAMS.pretrain.vocab_size, PARAMS.pretrain.seed)
    return Encoder(tokenizer, tokenizer.convert_tokens_to_ids("<video>"), 10, 512)


def exercises(clips: int) -> list[tuple[ask.Question | None, Exercise]]:
    """Every form of every question of some clips, and what comes without a question."""
    rng = np.random.default_rng(0)
    made: list[tuple[ask.Question | None, Exercise]] = []
    for number in range(clips):
        clip = pretraining.clip_of(1, number, 4)
        for question in ask.candidates(clip, rng):
            made += [(question, lessons.exercise(question, form, rng)) for form in lessons.FORMATS]
        made += [(None, item) for item in (lessons.description(clip), lessons.account(clip, clip.talk.introduced[0]))]
        made += [(None, lessons.binding(rng)) for _ in range(10)]
    return made


# ---- the tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "Plain words.",
        "",
        " two  spaces ",
        "tabs\tand\nlines\r\n",
        "é 漢字 😀",
        "مرحبا \u202e",
        "\x00\x07",
        "Ａ）",
        "\U0010ffff",
    ],
    ids=ascii,
)
def test_no_text_is_unknown_to_the_tokenizer(encoder: Encoder, text: str) -> None:
    ids = encoder.tokenizer(text, add_special_tokens=False).input_ids
    assert encoder.tokenizer.decode(ids) == text


def test_any_text_survives_the_tokenizer(encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        points = rng.integers(0, 0x3000 if rng.random() < 0.5 else 0x110000, 30)
        text = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
        assert encoder.tokenizer.decode(encoder.tokenizer(text, add_special_tokens=False).input_ids) == text


def test_every_label_is_one_token_of_its_own(encoder: Encoder) -> None:
    assert len(set(encoder.letters())) == 5
    labels = (*lessons.NUMBERS, *lessons.LATER_LETTERS, *lessons.LETTERS)
    answers = [encoder.answer(label) for label in labels]
    assert {len(answer) for answer in answers} == {2}
    assert len({answer[0] for answer in answers}) == len(labels)


def test_text_begins_with_the_start_token_and_only_text_at_a_start_does(encoder: Encoder) -> None:
    tokenizer = encoder.tokenizer
    assert tokenizer("USER: a").input_ids[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in encoder.suffix("What?", None)


def test_a_seed_gives_the_same_tokenizer_and_another_seed_another() -> None:
    one, again, other = (pretraining.make_tokenizer(1000, seed).backend_tokenizer.to_str() for seed in (3, 3, 4))
    assert one == again != other


# ---- the model


def test_the_base_has_one_to_three_million_parameters_in_shapes_that_nf4_takes(encoder: Encoder) -> None:
    model = pretraining.make_model(PARAMS.pretrain, PARAMS.frames.size, encoder.tokenizer)
    assert 1e6 < sum(weight.numel() for weight in model.parameters()) < 3e6
    linear = {
        name: module.weight.shape
        for name, module in model.model.language_model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert len(linear) == 7 * PARAMS.pretrain.layers
    for name, shape in linear.items():
        assert all(size % 64 == 0 for size in shape), name


def test_one_torch_seed_gives_one_model(encoder: Encoder) -> None:
    def first_weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model = pretraining.make_model(SMALL, SETTINGS.size, encoder.tokenizer)
        return torch.cat([weight.detach().flatten() for weight in model.parameters()])

    assert torch.equal(first_weights(1), first_weights(1))
    assert not torch.equal(first_weights(1), first_weights(2))


# ---- the exercises


def test_no_exercise_comes_near_cinepiles_format() -> None:
    """The base's low score in CinePile's format means something only while it has never seen that format."""
    made = exercises(clips=60)
    assert len(made) > 3000
    suffix = prompts.suffix("What?", ["v", "w", "x", "y", "z"])
    assert "- A) v" in suffix and suffix.endswith(f"{prompts.REMINDER} ASSISTANT:")
    for _, item in made:
        assert not re.search(r"- \w\)|[A-E]\)|[A-E]\.", item.suffix), item.suffix
        assert prompts.REMINDER not in item.suffix and "letter" not in item.suffix
        assert prompts.INSTRUCTION not in item.suffix
        if item.form != "binding":
            assert item.answer not in tuple("ABCDE")


def test_no_batch_comes_near_cinepiles_format_either(encoder: Encoder) -> None:
    work = pretraining.Exercises(dataclasses.replace(SMALL, clips_per_step=8), encoder, 8)
    texts = [encoder.tokenizer.decode(row) for _, rows in work for row in rows["input_ids"]]
    assert len(texts) == 8 * 8
    instruction = prompts.INSTRUCTION.removeprefix("USER: ")
    for text in texts:
        assert text.count("USER:") == 1 and text.count("ASSISTANT:") > 4
        assert "- A)" not in text and prompts.REMINDER not in text
        assert instruction[:40] not in text and instruction[-40:] not in text and "Subtitles:\n" not in text


def test_the_label_asked_for_is_that_of_the_right_option() -> None:
    checked: Counter[str] = Counter()
    for question, item in exercises(clips=20):
        checked[item.form] += 1
        if item.form == "open":
            assert item.answer == question.answer
        elif item.form in ("label", "words_and_label"):
            options = dict(re.findall(r"^\[?([1-5P-T])(?:\.|\]|:| =) (.*)$", item.suffix, re.MULTILINE))
            words, _, label = item.answer.rpartition(", ") if item.form == "words_and_label" else ("", "", item.answer)
            assert len(options) == 5 == len(set(options.values()))
            assert options[label] == question.answer and words in ("", question.answer)
        elif item.form == "binding":
            if "\n" in item.suffix:
                asked, *lines, _ = item.suffix.removeprefix("Look for ").splitlines()
                options = dict(re.fullmatch(r"\[?(\w)(?:\]|:| =) (.*)", line).groups() for line in lines)
            else:
                listed, asked = re.fullmatch(r"(.*)\. Which of them is (.*)\? ASSISTANT:", item.suffix).groups()
                options = dict(re.split(" = |: | stands for ", option) for option in listed.split("; "))
            assert len(options) == 5 == len(set(options.values()))
            assert options[item.answer] == asked
    assert min(checked[form] for form in (*lessons.FORMATS, "binding")) > 100


def test_the_right_label_of_an_exercise_cannot_be_guessed() -> None:
    answers = {form: Counter() for form in ("label", "binding")}
    for _, item in exercises(clips=60):
        if item.form in answers:
            answers[item.form][item.answer] += 1
    for form, labels in (("label", 10), ("binding", 15)):
        shares = np.array(list(answers[form].values())) / answers[form].total()
        assert len(shares) == labels and shares.max() < 1.5 / labels, form


def test_an_account_of_a_person_is_what_was_said_of_that_person() -> None:
    rng = np.random.default_rng(0)
    for number in range(50):
        clip = pretraining.clip_of(1, number, 4)
        person = clip.talk.introduced[rng.integers(3)]
        item = lessons.account(clip, person)
        name = re.fullmatch(r"Tell about (\w+)\. ASSISTANT:", item.suffix)[1]
        assert name == person.name
        said = [line for line in talk.lines(clip) if line.startswith(f"{name} ")]
        told = item.answer.split(", ")
        assert len(told) == len(said)
        for fact in told:
            assert any(fact.split()[-1] in line for line in said), (fact, said)


def test_every_prefix_holds_the_video_once_and_the_words(encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for number in range(30):
        clip = pretraining.clip_of(1, number, 4)
        ids = pretraining.clip_prefix(encoder, clip, rng)
        assert ids.count(encoder.video_token_id) == encoder.num_video_tokens
        text = encoder.tokenizer.decode(ids)
        assert all(line in text for line in talk.lines(clip))
        seen.add(text.partition("<video>")[0].count("\n") > 2)
    assert seen == {True, False}, "words come before the video and after it"


def test_a_roll_call_says_what_the_list_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        item = lessons.roll_call(rng)
        listed, names = re.fullmatch(r"(.*\.) Say for each: (.*)\. ASSISTANT:", item.suffix).groups()
        told = [pair.split(": ") for pair in item.answer.split("; ")]
        assert [first for first, _ in told] == names.split(", ") and len({first for first, _ in told}) == 5
        for first, second in told:
            together = rf"{first} \w+ {second}\.|\b{second}( =|:| stands for) {first}[;.]"
            assert re.search(together, listed), (first, second, listed)


def test_a_batch_depends_on_the_seed_and_its_number_alone(encoder: Encoder) -> None:
    """So the number of worker processes does not change what is learned."""

    def ids(seed: int, number: int) -> list[list[int]]:
        work = pretraining.Exercises(dataclasses.replace(SMALL, seed=seed), encoder, 8)
        return [pack.input_ids.tolist() for pack in work.batch(number)[1]]

    for number in (0, 3, 5, 7):
        assert ids(1, number) == ids(1, number) != ids(2, number)
    assert ids(1, 0) != ids(1, 1)


def test_lists_come_first_then_reading_then_looking_apart_from_it_then_both(encoder: Encoder) -> None:
    work = pretraining.Exercises(dataclasses.replace(SMALL, clips_per_step=20), encoder, 8)
    for number in range(8):
        clips, packs = work.batch(number)
        assert len(packs) == 20
        assert len(clips) == (0, 0, 0, 0, 10, 10, 20, 20)[number], "there is nothing to see while reading is learned"
        assert all(0 <= clip < 4 for clip in clips), "only the training films are seen"
        texts = [encoder.tokenizer.decode(pack.input_ids) for pack in packs]
        assert all("<subtitle>" not in text for text in texts)
        told = [any(line.partition("{")[0] in text for line in talk.VALUE) for text in texts]
        has_video = [text.count("<video>") == encoder.num_video_tokens for text in texts]
        assert has_video == [True] * len(clips) + [False] * (20 - len(clips))
        apart = number in (4, 5)
        assert told == [not (apart and seen) and number >= 2 for seen in has_video], number


def test_the_learning_rate_rises_stays_and_falls_to_nothing() -> None:
    factors = [pretraining.learning_rate_factor(step, 1000, 0.2) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01) and max(factors) == 1.0
    assert factors[100:800] == [1.0] * 700
    assert factors[-1] == pytest.approx(1 / 200) and factors[900] == pytest.approx(0.5)
    assert pretraining.learning_rate_factor(999, 1000, 0.0) == 1.0, "a training that another goes on from does not fall"


# ---- examination


@pytest.fixture(scope="module")
def examined(encoder: Encoder) -> dict[str, float]:
    """Figures of a base that has learned nothing."""
    torch.manual_seed(0)
    model = pretraining.make_model(SMALL, SETTINGS.size, encoder.tokenizer)
    own = encoder_for(model.config, encoder.tokenizer, SETTINGS.num_frames, 512)
    frames = np.stack([pretraining.look(number, 1, 2, SETTINGS) for number in range(6)])
    return pretraining.examine(model, own, SMALL, torch.from_numpy(frames), first=0)


def test_a_base_that_has_learned_nothing_knows_nothing(examined: dict[str, float]) -> None:
    assert all(0 <= share <= 1 for share in examined.values())
    for form in (*lessons.FORMATS, "binding", "description"):
        assert examined[f"held_out/{form}"] < 0.2
    assert examined["held_out/cinepile_format"] < 0.45, "one of five, give or take six clips"


def test_the_card_says_what_people_ask_for(examined: dict[str, float]) -> None:
    card = pretraining.card(examined)
    assert card["cinepile_format_accuracy"] == pytest.approx(examined["held_out/cinepile_format"], abs=1e-4)
    assert all(0 <= share <= 1 for share in card.values())
    assert {"open_accuracy", "own_format_accuracy", "letter_binding_accuracy"} < card.keys()


def test_an_answer_counts_only_when_all_of_it_and_its_end_are_right(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a model that gives every target away, and one that gives all but the end tokens away."""
    model = pretraining.make_model(SMALL, SETTINGS.size, encoder.tokenizer)
    own = encoder_for(model.config, encoder.tokenizer, SETTINGS.num_frames, 512)
    frames = torch.from_numpy(np.stack([pretraining.look(0, 1, 2, SETTINGS)]))

    def figures(knows_the_end: bool) -> dict[str, float]:
        def answers(_: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            targets = batch["targets"]
            if not len(targets):
                return torch.zeros(len(batch["slots"]), len(encoder.tokenizer))
            logits = torch.nn.functional.one_hot(targets, len(encoder.tokenizer)).float()
            logits[:, encoder.tokenizer.eos_token_id] *= knows_the_end
            return logits

        monkeypatch.setattr(pretraining, "answer_logits", answers)
        return pretraining.examine(model, own, SMALL, frames, first=0)

    learned = ("open", "label", "words_and_label", "binding", "lookup", "description", "account")
    assert {figures(knows_the_end=True)[f"held_out/{form}"] for form in learned} == {1.0}
    assert {figures(knows_the_end=False)[f"held_out/{form}"] for form in learned} == {0.0}


def test_pretraining_writes_a_base_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "HELD_OUT_CLIPS", 2)
    monkeypatch.setattr(pretraining.os, "cpu_count", lambda: 1)
    reports: list[tuple[int, dict[str, float]]] = []
    params: PretrainParams = dataclasses.replace(SMALL, out=str(tmp_path / "base"))
    figures = pretraining.pretrain(params, SETTINGS, "cpu", lambda step, values: reports.append((step, values)))
    held = yaml.safe_load((tmp_path / "base" / "pretraining.json").read_text())
    assert held == pretraining.card(figures)
    assert reports[-1] == (8, figures)
    assert all(np.isfinite(list(values.values())).all() for _, values in reports)
    model, tokenizer = load_base(ModelParams(str(tmp_path / "base"), "", "none", "float32"), "cpu")
    assert not any(weight.requires_grad for weight in model.parameters())
    encoder = encoder_for(model.config, tokenizer, SETTINGS.num_frames, 512)
    assert encoder.num_video_tokens == 2 * (2 * 2 + 1)
    assert encoder.prefix("words")[0].count(encoder.video_token_id) == 10
    assert len(encoder.letters()) == 5


def test_pretraining_goes_on_from_another_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of nearly nothing leaves the weights of the base that was named, up to bfloat16."""
    monkeypatch.setattr(pretraining, "HELD_OUT_CLIPS", 1)
    monkeypatch.setattr(pretraining.os, "cpu_count", lambda: 1)
    tokenizer = pretraining.make_tokenizer(1000, seed=9)
    torch.manual_seed(9)
    first = pretraining.make_model(SMALL, SETTINGS.size, tokenizer)
    pretraining.save(first, tokenizer, str(tmp_path / "first"))
    params = dataclasses.replace(
        SMALL, start=str(tmp_path / "first"), out=str(tmp_path / "second"), learning_rate=1e-12, apart_steps=0
    )
    pretraining.pretrain(params, SETTINGS, "cpu", lambda step, values: None)
    second, same = load_base(ModelParams(str(tmp_path / "second"), "", "none", "float32"), "cpu")
    assert same.get_vocab() == tokenizer.get_vocab()
    for name, weight in second.named_parameters():
        torch.testing.assert_close(weight, first.get_parameter(name).float(), rtol=0, atol=1e-2)


def test_frames_are_those_of_the_projects_times() -> None:
    """A base that has looked at other moments than the fine-tune will would be a worse start."""
    frames = pretraining.look(3, 1, 2, SETTINGS)
    assert frames.shape == (2, 32, 32, 3) and frames.dtype == np.uint8

    def look(policy: str) -> np.ndarray:
        return pretraining.look(3, 1, 2, dataclasses.replace(SETTINGS, policy=policy, num_frames=3))

    assert (look("shots") != look("uniform")).any()
