"""The tiny base: it can read anything, its exercises are true, and it never meets CinePile's format."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest

from builders.pretraining import SETTINGS, SMALL
from cinetune.data.mini import ask, talk
from cinetune.model.encoder import Encoder
from cinetune.pretraining import dataset, lessons
from cinetune.pretraining.lessons import Exercise
from cinetune.task import prompts
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.training


def exercises(clips: int) -> list[tuple[ask.Question | None, Exercise]]:
    """Every form of every question of some clips, and what comes without a question."""
    rng = np.random.default_rng(0)
    made: list[tuple[ask.Question | None, Exercise]] = []
    for number in range(clips):
        clip = dataset.clip_of(1, number, 4)
        for question in ask.candidates(clip, rng):
            made += [(question, lessons.exercise(question, form, rng)) for form in lessons.FORMATS]
        made += [(None, item) for item in (lessons.description(clip), lessons.account(clip, clip.talk.introduced[0]))]
        made += [(None, lessons.binding(rng)) for _ in range(10)]
    return made


# How a line of a list begins.
MARKED = r"[\[(*]? ?([{}])(?:\.|\]|\)|:| =| /)"


def test_no_exercise_comes_near_cinepiles_format() -> None:
    """The base's low score in CinePile's format means something only while it has never seen that format."""
    made = exercises(clips=60)
    assert len(made) > 3000
    suffix = prompts.suffix("What?", ["v", "w", "x", "y", "z"])
    assert "- A) v" in suffix and suffix.endswith(f"{prompts.REMINDER} ASSISTANT:")
    for _, item in made:
        assert not re.search(r"- \w\)|[A-E]\)|[A-E]\.", item.suffix), item.suffix
        assert prompts.REMINDER not in item.suffix and "one letter" not in item.suffix
        assert CINEPILE.told not in item.suffix
        if item.form != "binding":
            assert item.answer not in tuple("ABCDE")


def test_no_batch_comes_near_cinepiles_format_either(encoder: Encoder) -> None:
    work = dataset.Exercises(dataclasses.replace(SMALL, clips_per_step=8), encoder, 8)
    texts = [encoder.tokenizer.decode(row) for _, rows in work for row in rows["input_ids"]]
    assert len(texts) == 8 * 8
    instruction = CINEPILE.told
    for text in texts:
        assert text.count("USER:") == 1 and text.count("ASSISTANT:") > 4
        assert "- A)" not in text and prompts.REMINDER not in text
        assert instruction[:40] not in text and instruction[-40:] not in text and "Subtitles:\n" not in text


def test_the_label_asked_for_is_that_of_the_right_option() -> None:
    checked: Counter[str] = Counter()
    for question, item in exercises(clips=20):
        checked[item.form] += 1
        if item.form in ("open", "words"):
            assert item.answer == question.answer
            assert (f" {item.answer}\n" in item.suffix) == (item.form == "words")
        elif item.form in ("label", "words_and_label"):
            options = dict(re.findall(rf"^{MARKED.format('1-5P-T')} (.*)$", item.suffix, re.MULTILINE))
            words, _, label = item.answer.rpartition(", ") if item.form == "words_and_label" else ("", "", item.answer)
            assert len(options) == 5 == len(set(options.values()))
            assert options[label] == question.answer and words in ("", question.answer)
        elif item.form == "binding":
            if "\n" in item.suffix:
                asked, *lines, _ = item.suffix.removeprefix("Look for ").splitlines()
                options = dict(re.fullmatch(rf"{MARKED.format('1-5P-TA-E')} (.*)", line).groups() for line in lines)
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
        clip = dataset.clip_of(1, number, 4)
        person = clip.talk.introduced[rng.integers(3)]
        item = lessons.account(clip, person)
        name = re.fullmatch(r"Tell about (\w+)\. ASSISTANT:", item.suffix)[1]
        assert name == person.name
        said = [line for line in talk.lines(clip) if name in line]
        told = item.answer.split(", ")
        assert told[0] == f"in {person.colour}" and len(told) <= len(said)
        for fact in told:
            assert any(fact.split()[-1] in line for line in said), (fact, said)


def test_every_prefix_holds_the_video_once_and_the_words(encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for number in range(30):
        clip = dataset.clip_of(1, number, 4)
        ids = dataset.clip_prefix(encoder, clip, rng)
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
        assert [first for first, _ in told] == names.split(", ") and len({first for first, _ in told}) == len(told)
        assert 2 <= len(told) <= 5
        for first, second in told:
            together = rf"{first} \w+ {second}\.|\b{second}( =|:| stands for) {first}[;.]"
            assert re.search(together, listed), (first, second, listed)


def test_a_batch_depends_on_the_seed_and_its_number_alone(encoder: Encoder) -> None:
    """So the number of worker processes does not change what is learned."""

    def ids(seed: int, number: int) -> list[list[int]]:
        work = dataset.Exercises(dataclasses.replace(SMALL, seed=seed), encoder, 8)
        return [pack.input_ids.tolist() for pack in work.batch(number)[1]]

    for number in (0, 3, 5, 7):
        assert ids(1, number) == ids(1, number) != ids(2, number)
    assert ids(1, 0) != ids(1, 1)


def test_lists_come_first_then_reading_then_looking_apart_from_it_then_both(encoder: Encoder) -> None:
    work = dataset.Exercises(dataclasses.replace(SMALL, clips_per_step=20), encoder, 8)
    for number in range(8):
        clips, packs = work.batch(number)
        assert len(packs) == 20
        assert len(clips) == (0, 0, 0, 0, 10, 10, 20, 20)[number], "there is nothing to see while reading is learned"
        assert all(0 <= clip < 4 for clip in clips), "only the training films are seen"
        texts = [encoder.tokenizer.decode(pack.input_ids) for pack in packs]
        assert all("<subtitle>" not in text for text in texts)
        told = [any(line in text for lines in talk.TONE.values() for line in lines) for text in texts]
        has_video = [text.count("<video>") == encoder.num_video_tokens for text in texts]
        assert has_video == [True] * len(clips) + [False] * (20 - len(clips))
        apart = number in (4, 5)
        assert told == [not (apart and seen) and number >= 2 for seen in has_video], number


def test_frames_are_those_of_the_projects_times() -> None:
    """A base that has looked at other moments than the fine-tune will would be a worse start."""
    frames = dataset.look(3, 1, 2, SETTINGS)
    assert frames.shape == (2, 32, 32, 3) and frames.dtype == np.uint8

    def look(policy: str) -> np.ndarray:
        return dataset.look(3, 1, 2, dataclasses.replace(SETTINGS, policy=policy, num_frames=3))

    assert (look("shots") != look("uniform")).any()
