"""Frames of a story, drawn flat with Pillow: 160 x 120 pixels, the action inside the centre square."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw
from PIL.ImageDraw import ImageDraw as Pen

from cinetune.data.mini import scenery
from cinetune.data.mini.scenery import MIDDLE, STAGE_HEIGHT, STAGE_WIDTH, Colour
from cinetune.data.mini.story import Clip, Shot

WIDTH, HEIGHT = 160, 120
GROUND = 126
# People are tall in the picture, so that coats and poses survive at 64 pixels a side.
TALL = 1.6
PAN = 18
CLOSE_UP = 0.72
RUNNERS_LEAN = 8

COATS: dict[str, Colour] = {
    "red": (214, 32, 36), "blue": (36, 72, 220), "green": (20, 150, 60), "yellow": (246, 222, 30),
    "purple": (140, 44, 170), "orange": (250, 130, 20), "white": (250, 250, 250), "black": (24, 24, 28),
}  # fmt: skip
SKIES: dict[str, Colour] = {
    "dawn": (250, 190, 205), "day": (130, 195, 245), "dusk": (250, 150, 80), "night": (22, 26, 66),
}  # fmt: skip
LIGHT: dict[str, tuple[float, float, float]] = {
    "dawn": (1.0, 0.86, 0.9), "day": (1.0, 1.0, 1.0), "dusk": (1.0, 0.8, 0.62), "night": (0.38, 0.42, 0.68),
}  # fmt: skip
SKIN: Colour = (240, 200, 165)
INK: Colour = (20, 20, 20)
BENCH: Colour = (70, 46, 30)


def render(clip: Clip, frame: int) -> np.ndarray:
    """Frame number `frame` of a clip as uint8 [120, 160, 3]."""
    shot = next(shot for shot in reversed(clip.shots) if shot.first_frame <= frame)
    progress = (frame - shot.first_frame) / max(1, shot.num_frames - 1)
    stage = _scenery(shot.place, shot.scenery_seed, clip.time, clip.weather).copy()
    _draw_action(ImageDraw.Draw(stage), shot, progress, frame, clip.time, clip.weather)
    picture = stage.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=_camera(shot.camera, progress))
    _draw_weather(ImageDraw.Draw(picture), clip.weather, frame)
    return np.asarray(picture)


def _camera(move: str, progress: float) -> tuple[float, float, float, float]:
    """The part of the stage that is seen, as left, top, right, bottom."""
    offset, scale = 0.0, 1.0
    if move == "pan_left":
        offset = PAN * (1 - 2 * progress)
    elif move == "pan_right":
        offset = -PAN * (1 - 2 * progress)
    elif move == "zoom_in":
        scale = 1 - (1 - CLOSE_UP) * progress
    elif move == "zoom_out":
        scale = CLOSE_UP + (1 - CLOSE_UP) * progress
    width, height = WIDTH * scale, HEIGHT * scale
    left = MIDDLE + offset - width / 2
    bottom = STAGE_HEIGHT - 8 - (HEIGHT - height) * 0.25
    return left, bottom - height, left + width, bottom


def _lit(colour: Colour, time: str, weather: str, strength: float = 1.0) -> Colour:
    """A colour under the light of the hour; people (`strength` < 1) keep more of theirs than the scenery."""
    shaded = [c * (1 + strength * (light - 1)) for c, light in zip(colour, LIGHT[time], strict=True)]
    if weather == "fog":
        grey = 205 * (0.5 if time == "night" else 1)
        shaded = [c + (grey - c) * 0.55 * strength for c in shaded]
    if weather == "storm":
        shaded = [c * (1 - 0.35 * strength) for c in shaded]
    red, green, blue = (int(c) for c in shaded)
    return red, green, blue


@lru_cache(maxsize=8)
def _scenery(place: str, seed: int, time: str, weather: str) -> Image.Image:
    rng = np.random.default_rng(seed)
    sky = SKIES[time]
    if weather in ("rain", "snow"):
        red, green, blue = sky
        sky = ((red + 120) // 2, (green + 120) // 2, (blue + 120) // 2) if time != "night" else (44, 46, 70)
    stage = Image.new("RGB", (STAGE_WIDTH, STAGE_HEIGHT), _lit(sky, "day", weather))
    pen = ImageDraw.Draw(stage)
    if weather == "clear":
        _draw_sun(pen, time, rng)
    if weather == "rainbow":
        _draw_rainbow(pen)

    def lit(red: int, green: int, blue: int) -> Colour:
        return _lit((red, green, blue), time, weather)

    scenery.PLACES[place](pen, lit, rng)
    if weather == "snow":
        pen.rectangle((0, 122, STAGE_WIDTH, STAGE_HEIGHT), fill=lit(245, 248, 255))
    return stage


def _draw_sun(pen: Pen, time: str, rng: np.random.Generator) -> None:
    x = MIDDLE + int(rng.integers(-30, 31))
    if time == "night":
        for _ in range(24):
            star = int(rng.integers(0, STAGE_WIDTH)), int(rng.integers(0, 60))
            pen.point(star, fill=(255, 255, 230))
        pen.ellipse((x - 8, 30, x + 8, 46), fill=(240, 240, 215))
        pen.ellipse((x - 3, 27, x + 11, 43), fill=SKIES["night"])
    else:
        y = 34 if time == "day" else 52
        colour = {"dawn": (255, 240, 190), "day": (255, 240, 110), "dusk": (255, 95, 50)}[time]
        pen.ellipse((x - 10, y - 10, x + 10, y + 10), fill=colour)


def _draw_rainbow(pen: Pen) -> None:
    for i, colour in enumerate(((235, 60, 60), (250, 150, 40), (250, 230, 60), (70, 190, 80), (70, 110, 230))):
        pen.arc((22 + 4 * i, 26 + 4 * i, 194 - 4 * i, 198 - 4 * i), 180, 360, fill=colour, width=5)


def _draw_action(pen: Pen, shot: Shot, progress: float, frame: int, time: str, weather: str) -> None:
    """The people of a shot where they are at `progress` (0..1) of it."""
    step = math.sin(frame * 1.6)
    heading = shot.heading

    def person(actor: int, x: float, facing: int, pose: str) -> None:
        coat = _lit(COATS[shot.actors[actor].colour], time, weather, 0.3)
        _draw_person(pen, MIDDLE + x, facing, pose, step, coat, _lit(SKIN, time, weather, 0.3))

    if shot.event == "wait":
        pen.rectangle((MIDDLE - 26, GROUND - 15, MIDDLE + 26, GROUND - 10), fill=BENCH)
        for x in (MIDDLE - 22, MIDDLE + 18):
            pen.rectangle((x, GROUND - 10, x + 4, GROUND), fill=BENCH)
        person(0, 0, 0, "sit")
    elif shot.event == "walk":
        person(0, heading * (-38 + 76 * progress), heading, "walk")
    elif shot.event == "meet":
        gap = 44 - 28 * min(1.0, progress * 1.5)
        pose = "greet" if progress > 0.6 else "walk"
        person(0, -gap, 1, pose)
        person(1, gap, -1, pose)
    elif shot.event == "part":
        gap = 16 + 28 * max(0.0, (progress - 0.2) / 0.8)
        pose = "stand" if progress < 0.2 else "walk"
        person(0, -gap, -1, pose)
        person(1, gap, 1, pose)
    elif shot.event == "chase":
        centre = -16 + 32 * progress
        person(1, heading * (centre + 25), heading, "run")
        person(0, heading * (centre - 25), heading, "run")
    elif shot.event == "dance":
        turn = 1 if frame % 12 < 6 else -1
        person(0, -15, turn, "dance")
        person(1, 15, -turn, "dance")
    elif shot.event == "fight":
        reach = 3 * step
        person(0, -21 - reach, 1, "fence")
        person(1, 21 + reach, -1, "fence")


def _draw_person(pen: Pen, x: float, facing: int, pose: str, step: float, coat: Colour, skin: Colour) -> None:
    """One figure with its feet at (`x`, GROUND); `step` (-1..1) swings the legs."""
    lean = RUNNERS_LEAN * facing if pose == "run" else 0
    stride = {"walk": 4, "run": 9, "dance": 6}.get(pose, 0) * step
    if pose == "run":
        stride = math.copysign(max(5.0, abs(stride)), stride)
    hip = GROUND - 10 * TALL
    shoulder = hip - 17 * TALL
    for side in (-1, 1):
        pen.line((x + 3 * side, hip, x + 3 * side + side * stride * TALL, GROUND), fill=INK, width=4)
    pen.polygon(
        (
            (x - 8 * TALL, hip + 1),
            (x + 8 * TALL, hip + 1),
            (x + 5 * TALL + lean, shoulder),
            (x - 5 * TALL + lean, shoulder),
        ),
        fill=coat,
        outline=INK,
    )
    _draw_arms(pen, x, facing, pose, step, shoulder)
    head, radius = x + lean * 1.4, 5 * TALL
    top = shoulder - 11 * TALL
    pen.ellipse((head - radius, top, head + radius, top + 2 * radius), fill=skin, outline=INK)
    if facing:
        edge, tip = head + 4 * TALL * facing, head + 9 * TALL * facing
        pen.polygon(((edge, top + 5), (tip, top + 9), (edge, top + 12)), fill=skin, outline=INK)
    else:
        for side in (-1, 1):
            pen.rectangle((head + 3 * side - 1, top + 6, head + 3 * side + 1, top + 8), fill=INK)


def _draw_arms(pen: Pen, x: float, facing: int, pose: str, step: float, shoulder: float) -> None:
    """What tells a greeting, a dance, a fight and a chase apart."""
    arm = 10 * TALL * facing
    if pose == "greet":
        pen.line((x, shoulder + 8, x + arm, shoulder - 8), fill=INK, width=4)
    elif pose == "dance":
        for side in (-1, 1):
            pen.line((x, shoulder + 8, x + 17 * side, shoulder - 14), fill=INK, width=4)
    elif pose == "fence":
        pen.line((x, shoulder + 9, x + arm, shoulder + 4), fill=INK, width=4)
        pen.line((x + arm, shoulder + 4, x + 2.1 * arm, shoulder - 22 - 6 * step), fill=(225, 230, 240), width=3)
    elif pose == "run":
        x += RUNNERS_LEAN * facing
        pen.line((x, shoulder + 9, x + arm, shoulder + 6), fill=INK, width=4)
        for i in (1, 2):
            dust = x - RUNNERS_LEAN * facing - facing * (10 + 9 * i)
            pen.ellipse((dust - 4, GROUND - 7, dust + 4, GROUND), fill=(190, 180, 165))


def _draw_weather(pen: Pen, weather: str, frame: int) -> None:
    """What falls from the sky, in the picture's own coordinates; one pattern that scrolls, which keeps files small."""
    if weather == "rain":
        for i in range(34):
            x, y = (i * 53) % WIDTH, (i * i * 29 + frame * 12) % (HEIGHT + 12) - 12
            pen.line((x, y, x - 2, y + 9), fill=(150, 180, 235))
    elif weather == "snow":
        for i in range(34):
            x, y = (i * 53) % WIDTH, (i * i * 29 + frame * 4) % HEIGHT
            pen.rectangle((x, y, x + 1, y + 1), fill=(255, 255, 255))
    elif weather == "storm":
        pen.rectangle((0, 0, WIDTH, 13), fill=(48, 50, 60))
        for x in range(-8, WIDTH, 22):
            pen.ellipse((x, 5, x + 30, 21), fill=(48, 50, 60))
        if frame % 12 < 6:
            pen.line(((88, 14), (80, 30), (90, 32), (82, 50)), fill=(255, 250, 120), width=3)
