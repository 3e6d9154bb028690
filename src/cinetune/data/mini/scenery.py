"""The places of the stage, drawn flat: each a function of the light and of a seed that sets its landmarks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL.ImageDraw import ImageDraw as Pen

# The stage is larger than the picture, so that the camera can move over it.
STAGE_WIDTH, STAGE_HEIGHT = 216, 144
MIDDLE = STAGE_WIDTH // 2

Colour = tuple[int, int, int]
Lit = Callable[[int, int, int], Colour]


def _ground(pen: Pen, colour: Colour, top: int) -> None:
    pen.rectangle((0, top, STAGE_WIDTH, STAGE_HEIGHT), fill=colour)


def _places_along(rng: np.random.Generator, step: int) -> list[int]:
    """x positions of landmarks, about `step` apart."""
    return [x + int(rng.integers(-step // 5, step // 5 + 1)) for x in range(step // 2, STAGE_WIDTH, step)]


def _beach(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    pen.rectangle((0, 76, STAGE_WIDTH, 98), fill=lit(40, 130, 200))
    pen.line((0, 84, STAGE_WIDTH, 84), fill=lit(200, 230, 250))
    _ground(pen, lit(240, 216, 150), 96)
    for x in _places_along(rng, 90):
        pen.line((x, 100, x + 5, 62), fill=lit(140, 95, 50), width=3)
        for dx in (-13, -6, 6, 13):
            pen.line((x + 5, 62, x + 5 + dx, 58 + abs(dx) // 2), fill=lit(30, 140, 60), width=3)


def _forest(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    _ground(pen, lit(70, 120, 50), 98)
    for x in _places_along(rng, 26):
        height = int(rng.integers(44, 62))
        pen.rectangle((x - 2, 88, x + 2, 104), fill=lit(90, 60, 30))
        pen.polygon(((x - 13, 92), (x + 13, 92), (x, 92 - height)), fill=lit(16, 92, 40), outline=lit(8, 60, 26))


def _city(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    _ground(pen, lit(95, 95, 100), 100)
    for x in _places_along(rng, 36):
        top = int(rng.integers(36, 62))
        pen.rectangle((x - 16, top, x + 14, 100), fill=lit(135, 140, 155), outline=lit(70, 74, 88))
        for y in range(top + 5, 94, 10):
            for dx in (-11, -2, 7):
                pen.rectangle((x + dx, y, x + dx + 4, y + 5), fill=lit(250, 235, 150))
    pen.line((0, 128, STAGE_WIDTH, 128), fill=lit(235, 235, 235), width=2)


def _desert(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    _ground(pen, lit(226, 160, 84), 98)
    for x in _places_along(rng, 80):
        pen.ellipse((x - 60, 84, x + 60, 130), fill=lit(214, 142, 66))
    for x in _places_along(rng, 70):
        green = lit(60, 130, 60)
        pen.line((x, 104, x, 70), fill=green, width=5)
        pen.line((x - 9, 90, x - 9, 78), fill=green, width=4)
        pen.line((x - 9, 90, x, 90), fill=green, width=4)
        pen.line((x + 9, 84, x + 9, 74), fill=green, width=4)
        pen.line((x, 84, x + 9, 84), fill=green, width=4)


def _castle(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    _ground(pen, lit(110, 160, 80), 100)
    x = MIDDLE + int(rng.integers(-14, 15))
    stone, edge = lit(160, 160, 165), lit(90, 90, 98)
    pen.rectangle((x - 54, 64, x + 54, 100), fill=stone, outline=edge)
    for dx in (-60, -20, 20, 60):
        pen.rectangle((x + dx - 10, 40, x + dx + 10, 100), fill=stone, outline=edge)
        for i in (-10, -3, 4):
            pen.rectangle((x + dx + i, 35, x + dx + i + 4, 40), fill=stone, outline=edge)
        pen.line((x + dx, 35, x + dx, 22), fill=edge)
        pen.polygon(((x + dx, 22), (x + dx + 9, 25), (x + dx, 29)), fill=lit(170, 30, 120))


def _farm(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    _ground(pen, lit(226, 196, 70), 96)
    for y in range(100, STAGE_HEIGHT, 6):
        pen.line((0, y, STAGE_WIDTH, y), fill=lit(196, 160, 44))
    for x in _places_along(rng, 108):
        pen.rectangle((x - 26, 66, x + 26, 98), fill=lit(165, 50, 40), outline=lit(90, 24, 20))
        pen.polygon(((x - 30, 66), (x + 30, 66), (x, 42)), fill=lit(110, 80, 70))
        pen.rectangle((x - 8, 78, x + 8, 98), fill=lit(240, 235, 220), outline=lit(90, 24, 20))


def _harbour(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    pen.rectangle((0, 72, STAGE_WIDTH, 106), fill=lit(20, 92, 130))
    for x in _places_along(rng, 76):
        pen.polygon(((x - 24, 82), (x + 24, 82), (x + 16, 94), (x - 16, 94)), fill=lit(90, 50, 36))
        pen.line((x, 82, x, 40), fill=lit(60, 36, 24), width=2)
        pen.polygon(((x + 2, 42), (x + 2, 76), (x + 20, 76)), fill=lit(245, 240, 225))
        pen.polygon(((x - 2, 48), (x - 2, 76), (x - 16, 76)), fill=lit(225, 215, 195))
    _ground(pen, lit(120, 84, 56), 104)
    for x in range(4, STAGE_WIDTH, 14):
        pen.line((x, 104, x, STAGE_HEIGHT), fill=lit(80, 54, 34))


def _mountain(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    for x in _places_along(rng, 56):
        top = int(rng.integers(26, 46))
        pen.polygon(((x - 46, 102), (x + 46, 102), (x, top)), fill=lit(112, 110, 124), outline=lit(76, 74, 88))
        pen.polygon(((x - 10, top + 16), (x + 10, top + 16), (x, top)), fill=lit(248, 250, 255))
    _ground(pen, lit(134, 126, 112), 100)
    for x in _places_along(rng, 40):
        pen.ellipse((x - 6, 124, x + 6, 131), fill=lit(96, 90, 80))


def _market(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    _ground(pen, lit(190, 170, 150), 98)
    for x in _places_along(rng, 58):
        pen.rectangle((x - 22, 78, x + 22, 102), fill=lit(150, 96, 50), outline=lit(84, 50, 24))
        for i in range(-24, 24, 8):
            stripe = lit(225, 40, 60) if i % 16 else lit(250, 245, 235)
            pen.polygon(((x + i, 66), (x + i + 8, 66), (x + i * 0.7 + 6, 48), (x + i * 0.7, 48)), fill=stripe)
        for i in (-14, -4, 6):
            pen.ellipse((x + i, 72, x + i + 9, 81), fill=lit(250, 170, 30))


def _bridge(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    pen.rectangle((0, 70, STAGE_WIDTH, 112), fill=lit(60, 160, 190))
    x = MIDDLE + int(rng.integers(-16, 17))
    for side in (-1, 1):
        pen.rectangle((x + 62 * side - 6, 24, x + 62 * side + 6, 104), fill=lit(190, 60, 40), outline=lit(110, 30, 20))
    pen.arc((x - 62, -24, x + 62, 84), 0, 180, fill=lit(190, 60, 40), width=4)
    for dx in range(-48, 49, 12):
        pen.line((x + dx, 84 - dx * dx // 46, x + dx, 104), fill=lit(190, 60, 40), width=2)
    _ground(pen, lit(84, 84, 92), 104)
    pen.line((0, 106, STAGE_WIDTH, 106), fill=lit(230, 110, 80), width=3)


def _lighthouse(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    pen.rectangle((0, 84, STAGE_WIDTH, 104), fill=lit(30, 80, 150))
    x = MIDDLE + int(rng.integers(-40, 41))
    pen.polygon(((x - 50, 104), (x + 50, 104), (x + 26, 82), (x - 26, 82)), fill=lit(96, 90, 84))
    for i in range(4):
        colour = lit(250, 250, 245) if i % 2 else lit(210, 30, 40)
        pen.polygon(
            (
                (x - 13 + i, 84 - 14 * i),
                (x + 13 - i, 84 - 14 * i),
                (x + 12 - i, 70 - 14 * i),
                (x - 12 + i, 70 - 14 * i),
            ),
            fill=colour,
        )
    pen.rectangle((x - 7, 16, x + 7, 28), fill=(255, 240, 130), outline=lit(60, 60, 60))
    _ground(pen, lit(104, 128, 96), 104)


def _station(pen: Pen, lit: Lit, rng: np.random.Generator) -> None:
    x = MIDDLE + int(rng.integers(-24, 25))
    pen.rectangle((0, 34, STAGE_WIDTH, 42), fill=lit(60, 66, 74))
    for dx in range(6, STAGE_WIDTH, 52):
        pen.rectangle((dx, 42, dx + 4, 104), fill=lit(60, 66, 74))
    pen.rectangle((x - 88, 54, x + 88, 96), fill=lit(20, 110, 104), outline=lit(10, 50, 48))
    for dx in range(-80, 80, 22):
        pen.rectangle((x + dx, 60, x + dx + 15, 74), fill=lit(240, 240, 200))
    pen.rectangle((x - 88, 80, x + 88, 84), fill=lit(240, 210, 60))
    _ground(pen, lit(150, 144, 140), 100)
    pen.line((0, 104, STAGE_WIDTH, 104), fill=lit(245, 215, 60), width=4)


PLACES = {
    "beach": _beach, "forest": _forest, "city": _city, "desert": _desert,
    "castle": _castle, "farm": _farm, "harbour": _harbour, "mountain": _mountain,
    "market": _market, "bridge": _bridge, "lighthouse": _lighthouse, "station": _station,
}  # fmt: skip
