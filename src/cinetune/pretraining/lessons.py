"""The base's own lessons: questions in words, labelled options, labels and lookups, descriptions and accounts.

None of them is in CinePile's format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cinetune.data.mini import ask, story
from cinetune.task import prompts

# What the base's films are made of, and the words that it meets in lists: a general model knows more words than it has
# seen things. CinePile-mini's films show those as well.
WORLD, WORDS = story.GENERAL, story.FILM
# Labels of the base's own multiple choice, and of its exercises in binding. A to E are answers in the latter only, and
# never marked as CinePile marks them.
NUMBERS, LATER_LETTERS, LETTERS = tuple("12345"), tuple("PQRST"), tuple("ABCDE")
LINE_MARKS = ("{}: {}", "[{}] {}", "{} = {}", "{}. {}", "({}) {}", "{} / {}", "* {}: {}")
# "A." and "A)" are left to CinePile's kind of lists.
LETTER_MARKS = tuple(mark for mark in LINE_MARKS if not set(".)") & set(mark))
# How an answer is asked for, by form. Many wordings, so that one that was never met is understood as well.
ASKED = {
    "open": (prompts.OPEN_REMINDER, "In a few words.", "Say it.", "What is it?", ""),
    "words": ("In a few words.", "Say it.", "In words.", "Choose one of them, and say it.", ""),
    "label": ("Which one is it?", "Only the label.", "Give its label.", "Label alone.", "Choose one of them."),
    "words_and_label": ("Say it, then which one it is.", "In words, then the label.", "The answer and its label."),
}
FORMATS = ("open", "words", "label", "words_and_label")
FORMAT_SHARES = (0.25, 0.15, 0.4, 0.2)
# Options that go together, for exercises in binding; the first are single words, which make the start easier.
OPTION_POOLS = (
    WORDS.names + WORDS.objects + WORDS.feelings + WORDS.values + WORDS.colours + WORDS.places,
    WORDS.names,
    ask.coats(WORDS),
    tuple(f"the {thing}" for thing in WORDS.objects),
    tuple(f"the {relation}" for relation in WORDS.relations),
    tuple(f"to {reason}" for reason in WORDS.reasons),
    tuple(ask.PLACE_PHRASES[item] for item in WORDS.places),
    tuple(ask.EVENT_PHRASES[item] for item in WORDS.events),
    tuple(ask.WEATHER_PHRASES[item] for item in WORDS.weathers),
    tuple(ask.CAMERA_PHRASES.values()),
    tuple(ask.MOOD_PHRASES[item] for item in WORDS.weathers),
    tuple(theme for (event, _), theme in ask.THEMES.items() if event in WORDS.events),
    WORDS.feelings,
    WORDS.values,
)
SINGLE_WORDS_SHARE = 0.3
# How an account puts what was said of a person.
SAID = {
    "need": "needs the {}", "lose": "has lost the {}", "must": "must {}", "refuse": "will not {}",
    "is": "is the {} of {}", "was": "was the {} of {}", "show": "shows {} to {}", "hide": "hides {} from {}",
}  # fmt: skip


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
        text = f"{_begun(rng)}{question.text}\n{_asked(form, rng)} ASSISTANT:"
        return Exercise(form, question.kind, text, question.answer)
    position = int(rng.integers(ask.NUM_CHOICES))
    labels = (NUMBERS, LATER_LETTERS, LETTERS)[rng.integers(3 if form == "words" else 2)]
    marks = LETTER_MARKS if labels == LETTERS else LINE_MARKS
    options = _lines(labels, question.choices(rng, position), marks[rng.integers(len(marks))])
    answers = {"words": question.answer, "label": labels[position]}
    answer = answers.get(form, f"{question.answer}, {labels[position]}")
    text = f"{_begun(rng)}{question.text}\n{options}\n{_asked(form, rng)} ASSISTANT:"
    return Exercise(form, question.kind, text, answer)


def _begun(rng: np.random.Generator) -> str:
    return ("", "Question: ", "Asked: ", "Tell me: ")[rng.integers(4)]


def _asked(form: str, rng: np.random.Generator) -> str:
    return ASKED[form][rng.integers(len(ASKED[form]))]


def binding(rng: np.random.Generator) -> Exercise:
    """Text alone: several labelled options, one of them named, which label has it?"""
    labels, options, listed = _labelled((NUMBERS, LATER_LETTERS, LETTERS), rng)
    asked = int(rng.integers(ask.NUM_CHOICES))
    if rng.random() < 0.5:
        text = f"{listed}. Which of them is {options[asked]}? ASSISTANT:"
    else:
        options_in_lines = _lines(labels, options, LETTER_MARKS[rng.integers(len(LETTER_MARKS))])
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
        labels, options, listed = _labelled((NUMBERS, LATER_LETTERS), rng)
        pairs, listed = list(zip(options, labels, strict=True)), f"{listed}."
    else:
        names, _, things, listed = _owned(rng)
        pairs = list(zip(names, things, strict=True))
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    text = f"{listed} Say for each: {', '.join(first for first, _ in pairs)}. ASSISTANT:"
    return Exercise("roll_call", "roll_call", text, "; ".join(f"{first}: {second}" for first, second in pairs))


def _lines(labels: Sequence[str], options: Sequence[str], mark: str) -> str:
    return "\n".join(mark.format(*pair) for pair in zip(labels, options, strict=True))


def _labelled(kinds: Sequence[tuple[str, ...]], rng: np.random.Generator) -> tuple[tuple[str, ...], list[str], str]:
    """Labels of one of the kinds, the option of each, and both as text."""
    pool = OPTION_POOLS[0 if rng.random() < SINGLE_WORDS_SHARE else rng.integers(1, len(OPTION_POOLS))]
    options = [pool[i] for i in rng.permutation(len(pool))[: ask.NUM_CHOICES]]
    labels = kinds[int(rng.integers(len(kinds)))]
    mark = ("{} = {}", "{}: {}", "{} stands for {}")[rng.integers(3)]
    return labels, options, "; ".join(mark.format(*pair) for pair in zip(labels, options, strict=True))


def _owned(rng: np.random.Generator) -> tuple[list[str], str, list[str], str]:
    """Names, a verb, the thing of each name, and all as text."""
    pool = OPTION_POOLS[rng.integers(2, len(OPTION_POOLS))]
    things = [pool[i] for i in rng.permutation(len(pool))[: ask.NUM_CHOICES]]
    names = [WORLD.names[i] for i in rng.permutation(len(WORLD.names))[: ask.NUM_CHOICES]]
    verb = ("wants", "needs", "wears", "has", "knows")[rng.integers(5)]
    return names, verb, things, " ".join(f"{name} {verb} {thing}." for name, thing in zip(names, things, strict=True))


def description(clip: story.Clip) -> Exercise:
    """All that is seen in a clip: an answer of many words, each of which teaches to look."""
    return Exercise("description", "description", "Describe the film. ASSISTANT:", ask.describe(clip))


def account(clip: story.Clip, person: story.Person) -> Exercise:
    """All that is said of one person, likewise to teach reading."""
    talk = clip.talk
    told = [f"in {person.colour}"]
    told += [SAID[verb].format(item) for verb, name, item in (*talk.things, *talk.reasons) if name == person.name]
    of_two = (*talk.feelings, *talk.relations)
    told += [SAID[verb].format(item, other) for verb, name, other, item in of_two if name == person.name]
    return Exercise("account", "account", f"Tell about {person.name}. ASSISTANT:", ", ".join(told))


def prefix(words: str, rng: np.random.Generator) -> str:
    """A clip's prefix in one of the base's own wordings."""
    wordings = (
        f"USER: {prompts.VIDEO}\nThis is said in the film:\n{words}\n",
        f"USER: Read this.\n{words}\nNow watch this. {prompts.VIDEO}\n",
        f"USER: {prompts.VIDEO}\n{words}\n",
        f"USER: Words of a film, and the film.\n{words}\n{prompts.VIDEO}\n",
        f"USER: Here is what people say:\n{words}\nAnd what is seen: {prompts.VIDEO}\n",
        f"USER: {words}\n{prompts.VIDEO}\nNow some questions.\n",
    )
    return wordings[rng.integers(len(wordings))]
