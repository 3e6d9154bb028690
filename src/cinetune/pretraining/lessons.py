"""The base's own lessons: questions in words, labelled options, labels and lookups, descriptions and accounts.

None of them is in CinePile's format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cinetune.data.mini import ask, story
from cinetune.task import prompts

# Labels of the base's own multiple choice, and of its exercises in binding. A to E occur in the latter only, and
# never as CinePile marks them.
NUMBERS, LATER_LETTERS, LETTERS = tuple("12345"), tuple("PQRST"), tuple("ABCDE")
LINE_MARKS = ("{}: {}", "[{}] {}", "{} = {}", "{}. {}")
FORMATS = ("open", "label", "words_and_label")
FORMAT_SHARES = (0.35, 0.45, 0.2)
# Options that go together, for exercises in binding; the first are single words, which make the start easier.
OPTION_POOLS = (
    story.NAMES + story.OBJECTS + story.FEELINGS + story.VALUES + story.COLOURS + story.PLACES,
    story.NAMES,
    ask.ALL_COATS,
    tuple(f"the {thing}" for thing in story.OBJECTS),
    tuple(f"the {relation}" for relation in story.RELATIONS),
    tuple(f"to {reason}" for reason in story.REASONS),
    tuple(ask.PLACE_PHRASES.values()),
    tuple(ask.EVENT_PHRASES.values()),
    tuple(ask.WEATHER_PHRASES.values()),
    tuple(ask.CAMERA_PHRASES.values()),
    tuple(ask.MOOD_PHRASES.values()),
    tuple(ask.THEMES.values()),
    story.FEELINGS,
    story.VALUES,
)
SINGLE_WORDS_SHARE = 0.3


@dataclass(frozen=True)
class Exercise:
    """One question in one of the base's own formats."""

    form: str
    kind: str
    suffix: str
    answer: str


def exercise(question: ask.Question, form: str, rng: np.random.Generator) -> Exercise:
    """A story's question put in words or as multiple choice."""
    if form == "open":
        text = f"Question: {question.text}\n{prompts.OPEN_REMINDER} ASSISTANT:"
        return Exercise(form, question.kind, text, question.answer)
    position = int(rng.integers(ask.NUM_CHOICES))
    labels = (NUMBERS, LATER_LETTERS)[rng.integers(2)]
    options = _lines(labels, question.choices(rng, position), LINE_MARKS[rng.integers(len(LINE_MARKS))])
    if form == "label":
        text, answer = "Which one is it?", labels[position]
    else:
        text, answer = "Say it, then which one it is.", f"{question.answer}, {labels[position]}"
    return Exercise(form, question.kind, f"{question.text}\n{options}\n{text} ASSISTANT:", answer)


def binding(rng: np.random.Generator) -> Exercise:
    """Text alone: several labelled options, one of them named, which label has it?"""
    labels, options, listed = _labelled(rng)
    asked = int(rng.integers(ask.NUM_CHOICES))
    if rng.random() < 0.5:
        text = f"{listed}. Which of them is {options[asked]}? ASSISTANT:"
    else:
        # "A." and "A)" are left to CinePile's kind of lists.
        options_in_lines = _lines(labels, options, LINE_MARKS[rng.integers(3)])
        text = f"Look for {options[asked]}\n{options_in_lines}\nWhich one is it? ASSISTANT:"
    return Exercise("binding", f"binding_{labels[0]}", text, labels[asked])


def lookup(rng: np.random.Generator) -> Exercise:
    """Text alone: several people with one thing each; who has it, or what does one of them have?"""
    names, verb, things, listed = _owned(rng)
    asked = int(rng.integers(ask.NUM_CHOICES))
    if rng.random() < 0.5:
        return Exercise("lookup", "lookup_name", f"{listed} Who {verb} {things[asked]}? ASSISTANT:", names[asked])
    return Exercise("lookup", "lookup_thing", f"{listed} {names[asked]} {verb} what? ASSISTANT:", things[asked])


def roll_call(rng: np.random.Generator) -> Exercise:
    """Text alone: a binding or a lookup of every entry of a list, in another order; one answer teaches five times."""
    if rng.random() < 0.5:
        labels, options, listed = _labelled(rng)
        pairs, listed = list(zip(options, labels, strict=True)), f"{listed}."
    else:
        names, _, things, listed = _owned(rng)
        pairs = list(zip(names, things, strict=True))
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    text = f"{listed} Say for each: {', '.join(first for first, _ in pairs)}. ASSISTANT:"
    return Exercise("roll_call", "roll_call", text, "; ".join(f"{first}: {second}" for first, second in pairs))


def _lines(labels: Sequence[str], options: Sequence[str], mark: str) -> str:
    return "\n".join(mark.format(*pair) for pair in zip(labels, options, strict=True))


def _labelled(rng: np.random.Generator) -> tuple[tuple[str, ...], list[str], str]:
    """Labels, the option of each, and both as text."""
    pool = OPTION_POOLS[0 if rng.random() < SINGLE_WORDS_SHARE else rng.integers(1, len(OPTION_POOLS))]
    options = [pool[i] for i in rng.permutation(len(pool))[: ask.NUM_CHOICES]]
    labels = (NUMBERS, LATER_LETTERS, LETTERS)[rng.integers(3)]
    mark = ("{} = {}", "{}: {}", "{} stands for {}")[rng.integers(3)]
    return labels, options, "; ".join(mark.format(*pair) for pair in zip(labels, options, strict=True))


def _owned(rng: np.random.Generator) -> tuple[list[str], str, list[str], str]:
    """Names, a verb, the thing of each name, and all as text."""
    pool = OPTION_POOLS[rng.integers(2, len(OPTION_POOLS))]
    things = [pool[i] for i in rng.permutation(len(pool))[: ask.NUM_CHOICES]]
    names = [story.NAMES[i] for i in rng.permutation(len(story.NAMES))[: ask.NUM_CHOICES]]
    verb = ("wants", "needs", "wears", "has", "knows")[rng.integers(5)]
    return names, verb, things, " ".join(f"{name} {verb} {thing}." for name, thing in zip(names, things, strict=True))


def description(clip: story.Clip) -> Exercise:
    """All that is seen in a clip: an answer of many words, each of which teaches to look."""
    return Exercise("description", "description", "Describe the film. ASSISTANT:", ask.describe(clip))


def account(clip: story.Clip, person: story.Person) -> Exercise:
    """All that is said of one person, likewise to teach reading."""
    told = [f"in {person.colour}"]
    told += [f"needs the {thing}" for name, thing in clip.talk.quests if name == person.name]
    told += [f"must {reason}" for name, reason in clip.talk.errands if name == person.name]
    told += [f"{feeling} towards {other}" for name, other, feeling in clip.talk.feelings if name == person.name]
    first, second, relation = clip.talk.relation
    told += [f"the {relation} of {second}"] if first == person.name else []
    return Exercise("account", "account", f"Tell about {person.name}. ASSISTANT:", ", ".join(told))


def prefix(words: str, rng: np.random.Generator) -> str:
    """A clip's prefix in one of the base's own wordings."""
    wordings = (
        f"USER: {prompts.VIDEO}\nThis is said in the film:\n{words}\n",
        f"USER: Read this.\n{words}\nNow watch this. {prompts.VIDEO}\n",
        f"USER: {prompts.VIDEO}\n{words}\n",
    )
    return wordings[rng.integers(len(wordings))]
