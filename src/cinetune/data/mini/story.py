"""What happens in a film: cast, places, shots and talk, drawn at random from a seed.

A story is the ground truth of everything that is asked later: the drawing, the subtitles and the questions
are all read off it, so an answer is right by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

FPS = 12
CLIP_FRAMES = 120
MIN_SHOT_FRAMES = 20


@dataclass(frozen=True)
class World:
    """What films can be made of."""

    names: tuple[str, ...]
    colours: tuple[str, ...]
    places: tuple[str, ...]
    weathers: tuple[str, ...]
    events: tuple[str, ...]
    relations: tuple[str, ...]
    feelings: tuple[str, ...]
    objects: tuple[str, ...]
    reasons: tuple[str, ...]
    values: tuple[str, ...]
    # What people are to others, do with feelings and things, are said to do about reasons, and the words about values.
    relation_verbs: tuple[str, ...]
    feeling_verbs: tuple[str, ...]
    thing_verbs: tuple[str, ...]
    reason_verbs: tuple[str, ...]
    value_verbs: tuple[str, ...]

    def and_more(self, **more: tuple[str, ...]) -> World:
        """This world with more of each kind."""
        return replace(self, **{kind: getattr(self, kind) + items for kind, items in more.items()})


# What the base model learns about; a general model knows something of everything.
GENERAL = World(
    names=(
        "Ana", "Bela", "Cora", "Dario", "Edda", "Felix", "Greta", "Hugo", "Iris", "Jonas", "Kira", "Luca",
        "Mara", "Nils", "Olga", "Pavel", "Rosa", "Sami", "Tilda", "Umar", "Vera", "Willem", "Yara", "Zeno",
    ),
    colours=("red", "blue", "green", "yellow", "purple", "orange", "white", "black"),
    places=("beach", "forest", "city", "desert", "castle", "farm", "harbour", "mountain", "lighthouse", "station"),
    weathers=("clear", "rain", "snow", "fog", "storm"),
    events=("wait", "walk", "meet", "part", "chase", "fight"),
    relations=(
        "cousin", "teacher", "neighbour", "rival", "boss", "guide", "doctor", "partner",
        "servant", "sister", "lawyer", "landlord",
    ),
    feelings=(
        "joy", "fear", "envy", "pride", "pity", "shame", "anger", "trust", "disgust", "wonder", "grief", "scorn",
    ),
    objects=(
        "key", "rope", "lamp", "map", "ring", "coin", "book", "bell", "drum", "rose",
        "crown", "letter", "sword", "violin", "mirror", "candle",
    ),
    reasons=(
        "catch the boat", "save the farm", "pay a debt", "win the race",
        "see the king", "hide the truth", "find a cure", "keep a promise",
        "free the prisoner", "cross the border", "sell the horse", "warn the village",
    ),
    values=(
        "courage", "honesty", "patience", "loyalty", "mercy", "freedom", "hope", "duty",
        "wisdom", "beauty", "justice", "humour",
    ),
    relation_verbs=("is", "was"),
    feeling_verbs=("show", "hide"),
    thing_verbs=("need", "lose"),
    reason_verbs=("must", "refuse"),
    value_verbs=("praise", "mock"),
)  # fmt: skip
# CinePile-mini's: a part of what is seen is new to the base model, as much in a film is to a general one.
FILM = GENERAL.and_more(places=("market", "bridge"), weathers=("rainbow",), events=("dance",))
ALONE = ("wait", "walk")
TIMES = ("dawn", "day", "dusk", "night")
CAMERAS = ("still", "pan_left", "pan_right", "zoom_in", "zoom_out")
GENRES = ("Adventure", "Comedy", "Crime", "Drama", "Mystery", "Romance", "Western")
TONES = ("kind", "bitter")
CAST = 6

TITLE_FIRST = ("Silent", "Golden", "Broken", "Distant", "Hidden", "Last", "Paper", "Winter", "Stone", "Salt")
TITLE_SECOND = (
    "Road", "Garden", "Letter", "Harvest", "Tower", "Signal", "Mirror", "River", "Orchard", "Compass",
)  # fmt: skip


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
    world: World


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
    """What is said and nowhere seen, except who wears which coat.

    Relations and feelings are a verb, two names and what holds between them, things and reasons a verb, a name and what
    it is about. The whole cast is introduced, and nothing that is said hangs on who is on screen.
    """

    introduced: tuple[Person, ...]
    relations: tuple[tuple[str, str, str, str], ...]
    feelings: tuple[tuple[str, str, str, str], ...]
    things: tuple[tuple[str, str, str], ...]
    reasons: tuple[tuple[str, str, str], ...]
    order: tuple[str, str, str]
    values: tuple[tuple[str, str], ...]
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


def make_film(seed: int, film_id: int, world: World) -> Film:
    rng = np.random.default_rng((seed, film_id, 0))
    names = rng.permutation(world.names)[:CAST]
    colours = rng.permutation(world.colours)[:CAST]
    title = f"The {rng.choice(TITLE_FIRST)} {rng.choice(TITLE_SECOND)} {_roman(film_id)}"
    return Film(
        film_id=film_id,
        name=title,
        year=int(rng.integers(1950, 2021)),
        genre=tuple(str(genre) for genre in rng.permutation(GENRES)[: rng.integers(1, 3)]),
        cast=tuple(Person(str(name), str(colour)) for name, colour in zip(names, colours, strict=True)),
        world=world,
    )


def make_clip(seed: int, film: Film, index: int) -> Clip:
    """Clip `index` of a film. Within a clip no event and no place occurs twice, so every question has one answer."""
    rng = np.random.default_rng((seed, film.film_id, 1 + index))
    people = [film.cast[i] for i in rng.permutation(CAST)[:3]]
    num_shots = int(rng.integers(3, 5))
    places = rng.permutation(film.world.places)[:num_shots]
    events = rng.permutation(film.world.events)[:num_shots]
    lengths = _lengths(rng, num_shots)
    shots = []
    for i in range(num_shots):
        event = str(events[i])
        count = 1 if event in ALONE else 2
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
        weather=str(rng.choice(film.world.weathers)),
        shots=tuple(shots),
        talk=_make_talk(rng, film),
    )


def _make_talk(rng: np.random.Generator, film: Film) -> Talk:
    world = film.world

    def some(items: tuple[str, ...], count: int) -> list[str]:
        return [items[i] for i in rng.permutation(len(items))[:count]]

    def names(count: int) -> list[str]:
        return some(tuple(person.name for person in film.cast), count)

    def between(verbs: tuple[str, ...], items: tuple[str, ...]) -> tuple[tuple[str, str, str, str], ...]:
        people = names(2 * len(verbs))
        return tuple(zip(verbs, people[::2], people[1::2], some(items, len(verbs)), strict=True))

    things, listed = some(world.objects, len(world.thing_verbs) + 3), some(world.reasons, len(world.reason_verbs))
    return Talk(
        introduced=tuple(film.cast[i] for i in rng.permutation(CAST)),
        relations=between(world.relation_verbs, world.relations),
        feelings=between(world.feeling_verbs, world.feelings),
        things=_said(world.thing_verbs, names(len(world.thing_verbs)), things),
        reasons=_said(world.reason_verbs, names(len(world.reason_verbs)), listed),
        order=(things[-3], things[-2], things[-1]),
        values=tuple(zip(world.value_verbs, some(world.values, len(world.value_verbs)), strict=True)),
        tone=str(rng.choice(TONES)),
        wording_seed=int(rng.integers(1 << 30)),
    )


def _said(verbs: tuple[str, ...], names: list[str], items: list[str]) -> tuple[tuple[str, str, str], ...]:
    return tuple(zip(verbs, names, items, strict=False))


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
