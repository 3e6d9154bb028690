"""Questions about a clip: what may be asked of a story, with the truth read off it.

Two rules keep question and options from giving the answer away. The truth is drawn uniformly from the values that
a question can have; and wrong options are drawn without regard to which value is right, or from people and places
of the same clip, which a reader who has seen neither frames nor subtitles cannot tell from the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cinetune.data.mini import story
from cinetune.data.mini.story import Clip, Person, Shot

FRAMES, SUBTITLES, BOTH = "frames", "subtitles", "both"

PER_CATEGORY = {"CRD": 4, "NPA": 3, "STA": 4, "TEMP": 3, "TH": 2}
NUM_CHOICES = 5

EVENT_PHRASES = {
    "wait": "someone waits on a bench",
    "walk": "someone walks by alone",
    "meet": "two people meet",
    "part": "two people part",
    "chase": "someone is chased",
}
WEATHER_PHRASES = {
    "clear": "the sky is clear", "rain": "it rains", "snow": "it snows",
    "fog": "there is fog", "storm": "a storm rages",
}  # fmt: skip
MOOD_PHRASES = {
    "clear": "cheerful", "rain": "sad", "snow": "calm", "fog": "eerie", "storm": "threatening",
}  # fmt: skip
CAMERA_PHRASES = {
    "still": "it stays still", "pan_left": "it turns to the left", "pan_right": "it turns to the right",
    "zoom_in": "it comes closer", "zoom_out": "it draws back",
}  # fmt: skip
TIME_PHRASES = {"dawn": "at dawn", "day": "by day", "dusk": "at dusk", "night": "at night"}
PLACE_PHRASES = {
    "beach": "on the beach", "forest": "in the forest", "city": "in the city", "desert": "in the desert",
    "castle": "at the castle", "farm": "on the farm", "harbour": "in the harbour", "mountain": "in the mountains",
}  # fmt: skip
THEMES = {
    ("meet", "kind"): "friendship", ("meet", "bitter"): "conflict", ("part", "kind"): "farewell",
    ("part", "bitter"): "betrayal", ("chase", "kind"): "play", ("chase", "bitter"): "revenge",
    ("wait", "kind"): "longing", ("wait", "bitter"): "loneliness", ("walk", "kind"): "wandering",
    ("walk", "bitter"): "exile",
}  # fmt: skip
EVENT_SENTENCES = {
    "wait": "{0} waits on a bench",
    "walk": "{0} walks by alone",
    "meet": "{0} and {1} meet",
    "part": "{0} and {1} part",
    "chase": "{0} chases {1}",
}
NOTHING_MORE = "nothing, the scene ends"


# Wrong options that fit the clip, and all others.
Options = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Question:
    """One question with its truth; `needs` says what a viewer must have: frames, subtitles or both."""

    kind: str
    category: str
    text: str
    answer: str
    near: tuple[str, ...]
    others: tuple[str, ...]
    needs: str
    hard: bool = False

    def choices(self, rng: np.random.Generator, position: int, count: int = NUM_CHOICES) -> tuple[str, ...]:
        """`count` options, the truth at `position`; wrong ones first from `near`, then from `others`."""
        near = [option for option in dict.fromkeys(self.near) if option != self.answer]
        others = [option for option in dict.fromkeys(self.others) if option != self.answer and option not in near]
        wrong = [near[i] for i in rng.permutation(len(near))] + [others[i] for i in rng.permutation(len(others))]
        wrong = [wrong[i] for i in rng.permutation(count - 1)]
        return (*wrong[:position], self.answer, *wrong[position:])


def coat(person: Person) -> str:
    return f"the one in {person.colour}"


ALL_COATS = tuple(f"the one in {colour}" for colour in story.COLOURS)


def describe(clip: Clip) -> str:
    """What is seen, shot by shot, as an audio description would give it."""
    told = [f"{TIME_PHRASES[clip.time]}, {WEATHER_PHRASES[clip.weather]}"]
    for shot in clip.shots:
        event = EVENT_SENTENCES[shot.event].format(*(coat(person) for person in shot.actors))
        told.append(f"{_place(shot)} {event}, {CAMERA_PHRASES[shot.camera]}")
    return "; ".join(told)


def candidates(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """Every question that this clip can answer, in one of its wordings."""
    makers = (_relationships, _plot, _setting, _order, _theme)
    return [question for make in makers for question in make(clip, rng)]


def select(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """About 16 questions of the five categories, no two of one kind where the clip offers enough kinds."""
    pool = candidates(clip, rng)
    chosen: list[Question] = []
    for category, count in PER_CATEGORY.items():
        fitting = [question for question in pool if question.category == category]
        shuffled = [fitting[i] for i in rng.permutation(len(fitting))]
        seen: set[str] = set()
        fresh: list[Question] = []
        repeated: list[Question] = []
        for question in shuffled:
            (repeated if question.kind in seen else fresh).append(question)
            seen.add(question.kind)
        # First questions of kinds not asked yet, then the rest.
        chosen += [*fresh, *repeated][:count]
    return chosen


def _pick(rng: np.random.Generator, *wordings: str) -> str:
    return wordings[rng.integers(len(wordings))]


def _coats(clip: Clip, without: Person) -> Options:
    near = tuple(coat(person) for person in clip.people() if person != without)
    return near, tuple(option for option in ALL_COATS if option != coat(without))


def _names(clip: Clip, without: str = "") -> Options:
    near = tuple(person.name for person in clip.talk.introduced if person.name != without)
    return near, tuple(name for name in story.NAMES if name != without)


def _relationships(clip: Clip, rng: np.random.Generator) -> Iterator[Question]:
    asked = {
        "meet": ("Whom does {0} meet?", "Who comes to meet {0}?"),
        "part": ("From whom does {0} part?", "Whom does {0} leave behind?"),
        "chase": ("Whom does {0} chase?", "Who runs away from {0}?"),
        "chased": ("Who chases {0}?", "From whom does {0} run away?"),
    }
    for event, wordings in asked.items():
        shot = clip.shot_of("chase" if event == "chased" else event)
        if shot is None:
            continue
        one, other = shot.actors if event in ("chase", "chased") else _shuffled(rng, shot.actors)
        if event == "chased":
            one, other = other, one
        text = _pick(rng, *wordings)
        yield Question(event, "CRD", text.format(coat(one)), coat(other), *_coats(clip, one), needs=FRAMES)
        if event in ("meet", "chased"):
            yield Question(
                f"{event}_named", "CRD", text.format(one.name), other.name, *_names(clip, one.name),
                needs=BOTH, hard=True,
            )  # fmt: skip
    waiting = clip.shot_of("wait")
    if waiting:
        text = _pick(rng, "What is the name of the one who waits on the bench?", "Who waits on the bench, by name?")
        yield Question("waiting_named", "CRD", text, waiting.actors[0].name, *_names(clip), needs=BOTH, hard=True)
    first, second, relation = clip.talk.relation
    yield Question(
        "relation", "CRD",
        _pick(rng, f"What is {first} to {second}?", f"How is {first} related to {second}?"),
        f"the {relation}", (), tuple(f"the {relation}" for relation in story.RELATIONS), needs=SUBTITLES,
    )  # fmt: skip
    for name, towards, feeling in clip.talk.feelings:
        text = _pick(rng, f"What does {name} feel towards {towards}?", f"How does {name} feel about {towards}?")
        near = tuple(feeling for _, _, feeling in clip.talk.feelings)
        yield Question("feeling", "CRD", text, feeling, near, story.FEELINGS, needs=SUBTITLES)


def _plot(clip: Clip, rng: np.random.Generator) -> Iterator[Question]:
    for name, thing in clip.talk.quests:
        text = _pick(rng, f"What did {name} come for?", f"What does {name} want to have?")
        near = tuple(f"the {thing}" for _, thing in clip.talk.quests)
        others = tuple(f"the {thing}" for thing in story.OBJECTS)
        yield Question("quest", "NPA", text, f"the {thing}", near, others, needs=SUBTITLES)
    for name, reason in clip.talk.errands:
        text = _pick(rng, f"Why must {name} go?", f"For what reason does {name} leave?")
        near = tuple(f"to {reason}" for _, reason in clip.talk.errands)
        others = tuple(f"to {reason}" for reason in story.REASONS)
        yield Question("errand", "NPA", text, f"to {reason}", near, others, needs=SUBTITLES)
    phrases = tuple(EVENT_PHRASES.values())
    text = _pick(rng, "What happens at the end of the scene?", "What happens in the last shot?")
    yield Question("last_event", "NPA", text, EVENT_PHRASES[clip.shots[-1].event], (), phrases, needs=FRAMES)
    text = _pick(rng, "What happens at the start of the scene?", "What happens in the first shot?")
    yield Question("first_event", "NPA", text, EVENT_PHRASES[clip.shots[0].event], (), phrases, needs=FRAMES)


def _setting(clip: Clip, rng: np.random.Generator) -> Iterator[Question]:
    places = tuple(_place(shot) for shot in clip.shots), tuple(PLACE_PHRASES.values())
    text = _pick(rng, "Where does the scene begin?", "Where is the first shot set?")
    yield Question("first_place", "STA", text, _place(clip.shots[0]), *places, needs=FRAMES)
    text = _pick(rng, "Where does the scene end?", "Where is the last shot set?")
    yield Question("last_place", "STA", text, _place(clip.shots[-1]), *places, needs=FRAMES)
    text = _pick(rng, "What is the weather like?", "How is the weather shown?")
    weathers = tuple(WEATHER_PHRASES.values())
    yield Question("weather", "STA", text, WEATHER_PHRASES[clip.weather], (), weathers, needs=FRAMES)
    text = _pick(rng, "When and where does the scene open?", "At what time and place is the first shot set?")
    moments = tuple(f"{time} {place}" for time in TIME_PHRASES.values() for place in PLACE_PHRASES.values())
    answer = f"{TIME_PHRASES[clip.time]} {_place(clip.shots[0])}"
    yield Question("time_and_place", "STA", text, answer, (), moments, needs=FRAMES, hard=True)
    for shot, which in ((clip.shots[0], "first"), (clip.shots[-1], "last")):
        text = _pick(
            rng,
            f"How does the camera move in the {which} shot?",
            f"What does the camera do in the {which} shot?",
        )
        cameras = tuple(CAMERA_PHRASES.values())
        yield Question("camera", "STA", text, CAMERA_PHRASES[shot.camera], (), cameras, needs=FRAMES, hard=True)
    events = {
        "wait": "Where does someone wait?",
        "meet": "Where do two people meet?",
        "chase": "Where is the chase?",
    }
    for event, text in events.items():
        showing = clip.shot_of(event)
        if showing:
            yield Question("event_place", "STA", text, _place(showing), *places, needs=FRAMES)


def _order(clip: Clip, rng: np.random.Generator) -> Iterator[Question]:
    everyone = tuple(coat(person) for person in clip.people()), ALL_COATS
    if len(clip.shots[0].actors) == 1:
        text = _pick(rng, "Who is seen first?", "Who appears before all others?")
        yield Question("first_person", "TEMP", text, coat(clip.shots[0].actors[0]), *everyone, needs=FRAMES)
    if len(clip.shots[-1].actors) == 1:
        text = _pick(rng, "Who is seen last?", "Who is on screen at the very end?")
        yield Question("last_person", "TEMP", text, coat(clip.shots[-1].actors[0]), *everyone, needs=FRAMES)
    i = int(rng.integers(len(clip.shots) - 1))
    here, there = clip.shots[i], clip.shots[i + 1]
    text = _pick(rng, "Which place comes right after the {0}?", "Where do we go from the {0}?").format(here.place)
    near = tuple(_place(shot) for shot in clip.shots if shot is not here)
    others = tuple(phrase for place, phrase in PLACE_PHRASES.items() if place != here.place)
    yield Question("next_place", "TEMP", text, _place(there), near, others, needs=FRAMES)
    # The scene's end is the truth as often as any of the other four events.
    last = rng.random() < 1 / NUM_CHOICES
    i = len(clip.shots) - 1 if last else int(rng.integers(len(clip.shots) - 1))
    text = _pick(rng, "What happens right after this: {0}?", "What comes next once {0}?")
    text = text.format(EVENT_PHRASES[clip.shots[i].event])
    answer = NOTHING_MORE if last else EVENT_PHRASES[clip.shots[i + 1].event]
    others = tuple(phrase for event, phrase in EVENT_PHRASES.items() if event != clip.shots[i].event)
    yield Question("next_event", "TEMP", text, answer, (), (*others, NOTHING_MORE), needs=FRAMES, hard=True)
    which = int(rng.integers(3))
    word = ("first", "second", "last")[which]
    text = _pick(rng, f"Which of the things they list comes {word}?", f"What has to be brought {word}?")
    near = tuple(f"the {thing}" for thing in clip.talk.order)
    others = tuple(f"the {thing}" for thing in story.OBJECTS)
    yield Question("list_order", "TEMP", text, near[which], near, others, needs=SUBTITLES)
    alone = [shot for shot in clip.shots if len(shot.actors) == 1]
    if alone:
        shot = alone[rng.integers(len(alone))]
        text = f"Where is {shot.actors[0].name} seen alone?"
        if sum(shot.actors == other.actors for other in alone) == 1:
            near = tuple(_place(shot) for shot in clip.shots)
            yield Question(
                "alone_named",
                "STA",
                text,
                _place(shot),
                near,
                tuple(PLACE_PHRASES.values()),
                needs=BOTH,
                hard=True,
            )


def _theme(clip: Clip, rng: np.random.Generator) -> Iterator[Question]:
    text = _pick(rng, "What is the scene about in the end?", "Which theme does the ending carry?")
    answer = THEMES[clip.shots[-1].event, clip.talk.tone]
    yield Question("theme", "TH", text, answer, (), tuple(THEMES.values()), needs=BOTH, hard=True)
    text = _pick(rng, "Which value do the words praise?", "What do they hold above all?")
    yield Question("value", "TH", text, clip.talk.value, (), story.VALUES, needs=SUBTITLES)
    text = _pick(rng, "Which mood do the pictures set?", "How do the pictures feel?")
    moods = tuple(MOOD_PHRASES.values())
    yield Question("mood", "TH", text, MOOD_PHRASES[clip.weather], (), moods, needs=FRAMES)


def _place(shot: Shot) -> str:
    return PLACE_PHRASES[shot.place]


def _shuffled(rng: np.random.Generator, people: Sequence[Person]) -> tuple[Person, Person]:
    first, second = rng.permutation(2)
    return people[first], people[second]
