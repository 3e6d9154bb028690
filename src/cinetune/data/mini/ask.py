"""Questions about a clip: what may be asked of a story, with the truth read off it.

Two rules keep question and options from giving the answer away. The truth is drawn uniformly from the values that
a question can have; and wrong options are drawn without regard to which value is right, or from people and places
of the same clip, which a reader who has seen neither frames nor subtitles cannot tell from the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cinetune.data.mini.story import Clip, Person, Shot, World

FRAMES, SUBTITLES, BOTH = "frames", "subtitles", "both"

PER_CATEGORY = {"CRD": 4, "NPA": 3, "STA": 4, "TEMP": 3, "TH": 2}
NUM_CHOICES = 5

EVENT_PHRASES = {
    "wait": "someone waits on a bench",
    "walk": "someone walks by alone",
    "meet": "two people meet",
    "part": "two people part",
    "chase": "someone is chased",
    "dance": "two people dance",
    "fight": "two people fight",
}
WEATHER_PHRASES = {
    "clear": "the sky is clear", "rain": "it rains", "snow": "it snows",
    "fog": "there is fog", "storm": "a storm rages",
    "rainbow": "a rainbow stands in the sky",
}  # fmt: skip
MOOD_PHRASES = {
    "clear": "cheerful", "rain": "sad", "snow": "calm", "fog": "eerie", "storm": "threatening",
    "rainbow": "hopeful",
}  # fmt: skip
CAMERA_PHRASES = {
    "still": "it stays still", "pan_left": "it turns to the left", "pan_right": "it turns to the right",
    "zoom_in": "it comes closer", "zoom_out": "it draws back",
}  # fmt: skip
TIME_PHRASES = {"dawn": "at dawn", "day": "by day", "dusk": "at dusk", "night": "at night"}
PLACE_PHRASES = {
    "beach": "on the beach", "forest": "in the forest", "city": "in the city", "desert": "in the desert",
    "castle": "at the castle", "farm": "on the farm", "harbour": "in the harbour", "mountain": "in the mountains",
    "market": "at the market", "bridge": "on the bridge", "lighthouse": "at the lighthouse",
    "station": "at the station",
}  # fmt: skip
THEMES = {
    ("meet", "kind"): "friendship", ("meet", "bitter"): "conflict", ("part", "kind"): "farewell",
    ("part", "bitter"): "betrayal", ("chase", "kind"): "play", ("chase", "bitter"): "revenge",
    ("wait", "kind"): "longing", ("wait", "bitter"): "loneliness", ("walk", "kind"): "wandering",
    ("walk", "bitter"): "exile", ("dance", "kind"): "celebration", ("dance", "bitter"): "seduction",
    ("fight", "kind"): "contest", ("fight", "bitter"): "hatred",
}  # fmt: skip
EVENT_SENTENCES = {
    "wait": "{0} waits on a bench",
    "walk": "{0} walks by alone",
    "meet": "{0} and {1} meet",
    "part": "{0} and {1} part",
    "chase": "{0} chases {1}",
    "dance": "{0} and {1} dance",
    "fight": "{0} and {1} fight",
}
NOTHING_MORE = "nothing, the scene ends"
# How each kind of question is asked, in plain words: those of the base model's lessons.
ASKED = {
    "meet": ("Whom does {0} meet?", "Who comes to meet {0}?"),
    "part": ("From whom does {0} part?", "Whom does {0} leave behind?"),
    "chase": ("Whom does {0} chase?", "Who runs away from {0}?"),
    "chased": ("Who chases {0}?", "From whom does {0} run away?"),
    "dance": ("With whom does {0} dance?", "Who dances with {0}?"),
    "fight": ("Whom does {0} fight?", "Who fights with {0}?"),
    "is": ("What is {0} to {1}?", "How is {0} related to {1}?"),
    "was": ("What was {0} to {1}?", "How was {0} related to {1} before?"),
    "show": ("What does {0} feel towards {1}?", "What does {0} show {1}?"),
    "hide": ("What does {0} hide from {1}?", "What does {0} not let {1} see?"),
    "need": ("What did {0} come for?", "What does {0} want to have?"),
    "lose": ("What is {0} without now?", "What did {0} lose?"),
    "must": ("Why must {0} go?", "For what reason does {0} leave?"),
    "refuse": ("What will {0} not do?", "What does {0} refuse to do?"),
    "last_event": ("What happens at the end of the scene?", "What happens in the last shot?"),
    "first_event": ("What happens at the start of the scene?", "What happens in the first shot?"),
    "first_place": ("Where does the scene begin?", "Where is the first shot set?"),
    "last_place": ("Where does the scene end?", "Where is the last shot set?"),
    "weather": ("What is the weather like?", "How is the weather shown?"),
    "time_and_place": ("When and where does the scene open?", "At what time and place is the first shot set?"),
    "camera": ("How does the camera move in the {0} shot?", "What does the camera do in the {0} shot?"),
    "first_person": ("Who is seen first?", "Who appears before all others?"),
    "last_person": ("Who is seen last?", "Who is on screen at the very end?"),
    "next_place": ("Which place comes right after the {0}?", "Where do we go from the {0}?"),
    "next_event": ("What happens right after this: {0}?", "What comes next once {0}?"),
    "list_order": ("Which of the things they list comes {0}?", "What has to be brought {0}?"),
    "theme": ("What is the scene about in the end?", "Which theme does the ending carry?"),
    "praise": ("Which value do the words praise?", "What do they hold above all?"),
    "mock": ("Which value do the words mock?", "What do they make light of?"),
    "mood": ("Which mood does the weather set?", "How does the weather feel?"),
}
# The same in film's own terms, which the base model has never met: CinePile-mini asks for these kinds so.
TERMS = {
    "dance": "Who is the love interest of {0}?",
    "fight": "Who is the antagonist of {0}?",
    "was": "What is the backstory of {0} and {1}?",
    "hide": "What is the subtext between {0} and {1}?",
    "need": "What is the MacGuffin of {0}?",
    "lose": "What is the setback of {0}?",
    "must": "What is the motivation of {0}?",
    "first_place": "What is the establishing set?",
    "weather": "What is the atmosphere of the exteriors?",
    "time_and_place": "What is the slugline?",
    "camera": "What is the technique of the {1} take?",
    "first_person": "Who has the cold open?",
    "next_place": "To which set does the editing cut from the {0}?",
    "list_order": "Which prop of the continuity list is {0}?",
    "praise": "What is the moral?",
    "mock": "What is the target of the satire?",
    "mood": "What is the key of the picture?",
}
EVENT_PLACE = {
    "wait": "Where does someone wait?",
    "meet": "Where do two people meet?",
    "chase": "Where is the chase?",
    "dance": "Where do two people dance?",
}


# Wrong options that fit the clip, and all others.
Options = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Question:
    """One question with its truth; `needs` says what a viewer must have: frames, subtitles or both.

    about: the people, things and moments that it names.
    """

    kind: str
    category: str
    text: str
    answer: str
    near: tuple[str, ...]
    others: tuple[str, ...]
    needs: str
    hard: bool = False
    about: tuple[str, ...] = ()

    def in_terms_of_film(self) -> Question:
        """The same asked in film's own terms, where its kind has any."""
        return replace(self, text=TERMS[self.kind].format(*self.about)) if self.kind in TERMS else self

    def choices(self, rng: np.random.Generator, position: int, count: int = NUM_CHOICES) -> tuple[str, ...]:
        """`count` options, the truth at `position`; wrong ones first from `near`, then from `others`."""
        near = [option for option in dict.fromkeys(self.near) if option != self.answer]
        others = [option for option in dict.fromkeys(self.others) if option != self.answer and option not in near]
        wrong = [near[i] for i in rng.permutation(len(near))] + [others[i] for i in rng.permutation(len(others))]
        wrong = [wrong[i] for i in rng.permutation(count - 1)]
        return (*wrong[:position], self.answer, *wrong[position:])


def coat(person: Person) -> str:
    return f"the one in {person.colour}"


def coats(world: World) -> tuple[str, ...]:
    return tuple(f"the one in {colour}" for colour in world.colours)


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
    """About 16 questions of the five categories, no two of one kind where the clip offers enough kinds.

    They are asked in film's own terms, where there are any.
    """
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
    return [question.in_terms_of_film() for question in chosen]


def _ask(
    rng: np.random.Generator,
    kind: str,
    category: str,
    answer: str,
    options: Options,
    needs: str,
    about: tuple[str, ...] = (),
    hard: bool = False,
) -> Question:
    """A question in one of the plain wordings of its kind."""
    wordings = ASKED[kind]
    text = wordings[rng.integers(len(wordings))].format(*about)
    return Question(kind, category, text, answer, *options, needs=needs, hard=hard, about=about)


def _coats(clip: Clip, without: Person | None = None) -> Options:
    return (), tuple(coat(person) for person in clip.film.cast if person != without)


def _relationships(clip: Clip, rng: np.random.Generator) -> Iterator[Question]:
    for kind in ("meet", "part", "chase", "chased", "dance", "fight"):
        shot = clip.shot_of("chase" if kind == "chased" else kind)
        if shot is None:
            continue
        one, other = shot.actors if kind in ("chase", "chased") else _shuffled(rng, shot.actors)
        if kind == "chased":
            one, other = other, one
        yield _ask(rng, kind, "CRD", coat(other), _coats(clip, one), FRAMES, (coat(one),))
    told = tuple(f"the {relation}" for *_, relation in clip.talk.relations)
    options = told, tuple(f"the {relation}" for relation in clip.film.world.relations)
    for verb, first, second, relation in clip.talk.relations:
        yield _ask(rng, verb, "CRD", f"the {relation}", options, SUBTITLES, (first, second))
    options = tuple(feeling for *_, feeling in clip.talk.feelings), clip.film.world.feelings
    for verb, name, towards, feeling in clip.talk.feelings:
        yield _ask(rng, verb, "CRD", feeling, options, SUBTITLES, (name, towards))


def _plot(clip: Clip, rng: np.random.Generator) -> Iterator[Question]:
    world, talk = clip.film.world, clip.talk
    told = *(f"the {thing}" for _, _, thing in talk.things), *(f"the {thing}" for thing in talk.order)
    options = told, tuple(f"the {thing}" for thing in world.objects)
    for verb, name, thing in talk.things:
        yield _ask(rng, verb, "NPA", f"the {thing}", options, SUBTITLES, (name,))
    options = tuple(f"to {reason}" for _, _, reason in talk.reasons), tuple(f"to {reason}" for reason in world.reasons)
    for verb, name, reason in talk.reasons:
        yield _ask(rng, verb, "NPA", f"to {reason}", options, SUBTITLES, (name,))
    phrases = (), tuple(EVENT_PHRASES[event] for event in world.events)
    yield _ask(rng, "last_event", "NPA", EVENT_PHRASES[clip.shots[-1].event], phrases, FRAMES)
    yield _ask(rng, "first_event", "NPA", EVENT_PHRASES[clip.shots[0].event], phrases, FRAMES)


def _setting(clip: Clip, rng: np.random.Generator) -> Iterator[Question]:
    world, first, last = clip.film.world, clip.shots[0], clip.shots[-1]
    places = tuple(_place(shot) for shot in clip.shots), tuple(PLACE_PHRASES[place] for place in world.places)
    yield _ask(rng, "first_place", "STA", _place(first), places, FRAMES)
    yield _ask(rng, "last_place", "STA", _place(last), places, FRAMES)
    weathers = (), tuple(WEATHER_PHRASES[weather] for weather in world.weathers)
    yield _ask(rng, "weather", "STA", WEATHER_PHRASES[clip.weather], weathers, FRAMES)
    moments = (), tuple(f"{time} {place}" for time in TIME_PHRASES.values() for place in places[1])
    opening = f"{TIME_PHRASES[clip.time]} {_place(first)}"
    yield _ask(rng, "time_and_place", "STA", opening, moments, FRAMES, hard=True)
    cameras = (), tuple(CAMERA_PHRASES.values())
    for shot, about in ((first, ("first", "opening")), (last, ("last", "closing"))):
        yield _ask(rng, "camera", "STA", CAMERA_PHRASES[shot.camera], cameras, FRAMES, about, hard=True)
    for event, text in EVENT_PLACE.items():
        showing = clip.shot_of(event)
        if showing:
            yield Question("event_place", "STA", text, _place(showing), *places, needs=FRAMES)
    alone = [shot for shot in clip.shots if len(shot.actors) == 1]
    if alone:
        shot = alone[rng.integers(len(alone))]
        if sum(shot.actors == other.actors for other in alone) == 1:
            text = f"Where is {shot.actors[0].name} seen alone?"
            yield Question("alone_named", "STA", text, _place(shot), *places, needs=BOTH, hard=True)


def _order(clip: Clip, rng: np.random.Generator) -> Iterator[Question]:
    world, talk = clip.film.world, clip.talk
    for kind, shot in (("first_person", clip.shots[0]), ("last_person", clip.shots[-1])):
        if len(shot.actors) == 1:
            yield _ask(rng, kind, "TEMP", coat(shot.actors[0]), _coats(clip), FRAMES)
    i = int(rng.integers(len(clip.shots) - 1))
    here, there = clip.shots[i], clip.shots[i + 1]
    seen = tuple(_place(shot) for shot in clip.shots if shot is not here)
    places = seen, tuple(PLACE_PHRASES[place] for place in world.places if place != here.place)
    yield _ask(rng, "next_place", "TEMP", _place(there), places, FRAMES, (here.place,))
    # The scene's end is the truth as often as any of the other events.
    last = rng.random() < 1 / len(world.events)
    i = len(clip.shots) - 1 if last else int(rng.integers(len(clip.shots) - 1))
    event = clip.shots[i].event
    answer = NOTHING_MORE if last else EVENT_PHRASES[clip.shots[i + 1].event]
    phrases = *(EVENT_PHRASES[other] for other in world.events if other != event), NOTHING_MORE
    yield _ask(rng, "next_event", "TEMP", answer, ((), phrases), FRAMES, (EVENT_PHRASES[event],), hard=True)
    which = int(rng.integers(3))
    listed = tuple(f"the {thing}" for thing in talk.order)
    told = *listed, *(f"the {thing}" for _, _, thing in talk.things)
    things = told, tuple(f"the {thing}" for thing in world.objects)
    yield _ask(rng, "list_order", "TEMP", listed[which], things, SUBTITLES, (("first", "second", "last")[which],))


def _theme(clip: Clip, rng: np.random.Generator) -> Iterator[Question]:
    world = clip.film.world
    themes = (), tuple(theme for (event, _), theme in THEMES.items() if event in world.events)
    answer = THEMES[clip.shots[-1].event, clip.talk.tone]
    yield _ask(rng, "theme", "TH", answer, themes, BOTH, hard=True)
    values = tuple(value for _, value in clip.talk.values), world.values
    for verb, value in clip.talk.values:
        yield _ask(rng, verb, "TH", value, values, SUBTITLES)
    moods = (), tuple(MOOD_PHRASES[weather] for weather in world.weathers)
    yield _ask(rng, "mood", "TH", MOOD_PHRASES[clip.weather], moods, FRAMES)


def _place(shot: Shot) -> str:
    return PLACE_PHRASES[shot.place]


def _shuffled(rng: np.random.Generator, people: Sequence[Person]) -> tuple[Person, Person]:
    first, second = rng.permutation(2)
    return people[first], people[second]
