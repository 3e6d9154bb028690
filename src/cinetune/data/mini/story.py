"""What happens in a film: cast, places, shots and talk, drawn at random from a seed.

A story is the ground truth of everything that is asked later: the drawing, the subtitles and the questions
are all read off it, so an answer is right by construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FPS = 12
CLIP_FRAMES = 120
MIN_SHOT_FRAMES = 20

NAMES = (
    "Ana", "Bela", "Cora", "Dario", "Edda", "Felix", "Greta", "Hugo", "Iris", "Jonas", "Kira", "Luca",
    "Mara", "Nils", "Olga", "Pavel", "Rosa", "Sami", "Tilda", "Umar", "Vera", "Willem", "Yara", "Zeno",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "white", "black")
PLACES = ("beach", "forest", "city", "desert", "castle", "farm", "harbour", "mountain")
TIMES = ("dawn", "day", "dusk", "night")
WEATHERS = ("clear", "rain", "snow", "fog", "storm")
EVENTS = ("wait", "walk", "meet", "part", "chase")
CAMERAS = ("still", "pan_left", "pan_right", "zoom_in", "zoom_out")
GENRES = ("Adventure", "Comedy", "Crime", "Drama", "Mystery", "Romance", "Western")

RELATIONS = ("cousin", "teacher", "neighbour", "rival", "boss", "guide", "doctor", "partner")
FEELINGS = ("joy", "fear", "envy", "pride", "pity", "shame", "anger", "trust")
OBJECTS = ("key", "rope", "lamp", "map", "ring", "coin", "book", "bell", "drum", "rose")
REASONS = (
    "catch the boat", "save the farm", "pay a debt", "win the race",
    "see the king", "hide the truth", "find a cure", "keep a promise",
)  # fmt: skip
VALUES = ("courage", "honesty", "patience", "loyalty", "mercy", "freedom", "hope", "duty")
TONES = ("kind", "bitter")

TITLE_FIRST = ("Silent", "Golden", "Broken", "Distant", "Hidden", "Last", "Paper", "Winter", "Stone", "Salt")
TITLE_SECOND = (
    "Road",
    "Garden",
    "Letter",
    "Harvest",
    "Tower",
    "Signal",
    "Mirror",
    "River",
    "Orchard",
    "Compass",
)


@dataclass(frozen=True)
class Person:
    name: str
    colour: str


@dataclass(frozen=True)
class Film:
    film_id: int
    name: str
    year: int
    genre: tuple[str, ...]
    cast: tuple[Person, ...]


@dataclass(frozen=True)
class Shot:
    """One take: `actors[0]` leads (waits, walks, comes from the left, chases), `actors[1]` is the other."""

    place: str
    event: str
    actors: tuple[Person, ...]
    heading: int
    camera: str
    first_frame: int
    num_frames: int
    scenery_seed: int


@dataclass(frozen=True)
class Talk:
    """What is said and nowhere seen, except who wears which coat."""

    introduced: tuple[Person, ...]
    relation: tuple[str, str, str]
    feelings: tuple[tuple[str, str, str], ...]
    quests: tuple[tuple[str, str], ...]
    errands: tuple[tuple[str, str], ...]
    order: tuple[str, str, str]
    value: str
    tone: str
    wording_seed: int


@dataclass(frozen=True)
class Clip:
    film: Film
    index: int
    time: str
    weather: str
    shots: tuple[Shot, ...]
    talk: Talk

    @property
    def num_frames(self) -> int:
        return CLIP_FRAMES

    @property
    def duration_s(self) -> float:
        return CLIP_FRAMES / FPS

    @property
    def cuts(self) -> tuple[float, ...]:
        """Seconds at which a new shot begins."""
        return tuple(shot.first_frame / FPS for shot in self.shots[1:])

    def people(self) -> tuple[Person, ...]:
        """Everyone on screen, in order of appearance."""
        return tuple(dict.fromkeys(person for shot in self.shots for person in shot.actors))

    def shot_of(self, event: str) -> Shot | None:
        return next((shot for shot in self.shots if shot.event == event), None)


def make_film(seed: int, film_id: int) -> Film:
    rng = np.random.default_rng((seed, film_id, 0))
    names = rng.permutation(NAMES)[:4]
    colours = rng.permutation(COLOURS)[:4]
    title = f"The {rng.choice(TITLE_FIRST)} {rng.choice(TITLE_SECOND)} {_roman(film_id)}"
    return Film(
        film_id=film_id,
        name=title,
        year=int(rng.integers(1950, 2021)),
        genre=tuple(str(genre) for genre in rng.permutation(GENRES)[: rng.integers(1, 3)]),
        cast=tuple(Person(str(name), str(colour)) for name, colour in zip(names, colours, strict=True)),
    )


def make_clip(seed: int, film: Film, index: int) -> Clip:
    """Clip `index` of a film. Within a clip no event and no place occurs twice, so every question has one answer."""
    rng = np.random.default_rng((seed, film.film_id, 1 + index))
    people = [film.cast[i] for i in rng.permutation(len(film.cast))[:3]]
    num_shots = int(rng.integers(3, 5))
    places = rng.permutation(PLACES)[:num_shots]
    events = rng.permutation(EVENTS)[:num_shots]
    lengths = _lengths(rng, num_shots)
    shots = []
    for i in range(num_shots):
        event = str(events[i])
        count = 1 if event in ("wait", "walk") else 2
        actors = tuple(people[j] for j in rng.permutation(3)[:count])
        shots.append(
            Shot(
                place=str(places[i]),
                event=event,
                actors=actors,
                heading=int(rng.choice((-1, 1))),
                camera=str(rng.choice(CAMERAS)),
                first_frame=int(sum(lengths[:i])),
                num_frames=lengths[i],
                scenery_seed=int(rng.integers(1 << 30)),
            )
        )
    return Clip(
        film=film,
        index=index,
        time=str(rng.choice(TIMES)),
        weather=str(rng.choice(WEATHERS)),
        shots=tuple(shots),
        talk=_make_talk(rng, people),
    )


def _make_talk(rng: np.random.Generator, people: list[Person]) -> Talk:
    first, second, third = (people[i] for i in rng.permutation(3))
    feelings = rng.permutation(FEELINGS)[:2]
    objects = [str(thing) for thing in rng.permutation(OBJECTS)[:5]]
    reasons = rng.permutation(REASONS)[:2]
    return Talk(
        introduced=tuple(people[i] for i in rng.permutation(3)),
        relation=(first.name, second.name, str(rng.choice(RELATIONS))),
        feelings=((second.name, third.name, str(feelings[0])), (third.name, first.name, str(feelings[1]))),
        quests=((first.name, objects[0]), (third.name, objects[1])),
        errands=((first.name, str(reasons[0])), (second.name, str(reasons[1]))),
        order=(objects[2], objects[3], objects[4]),
        value=str(rng.choice(VALUES)),
        tone=str(rng.choice(TONES)),
        wording_seed=int(rng.integers(1 << 30)),
    )


def _lengths(rng: np.random.Generator, num_shots: int) -> list[int]:
    spare = CLIP_FRAMES - num_shots * MIN_SHOT_FRAMES
    borders = np.sort(rng.integers(0, spare + 1, num_shots - 1))
    return [int(n) + MIN_SHOT_FRAMES for n in np.diff([0, *borders, spare])]


def _roman(number: int) -> str:
    """A sequel's number: it keeps the titles of two films apart."""
    digits = []
    values = (
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
    )
    for value, letters in (*values, (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")):
        while number >= value:
            digits.append(letters)
            number -= value
    return "".join(digits)
