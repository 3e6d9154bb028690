"""What an ablation withholds from the model or changes, and how a rotated option is mapped back.

Ablations that show a clip alike share one reading of it: the plain evaluation and the rotations of the options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, get_args
from zlib import crc32

import numpy as np

from cinetune.errors import InputError
from cinetune.params import PARAMS, Ablation, EvaluateParams, Params
from cinetune.task import description
from cinetune.task.description import CINEPILE, Task

T = TypeVar("T")

PLAIN = "none"
PIPELINE_MODELS = ("base", "finetuned")
ABLATIONS: tuple[str, ...] = get_args(Ablation)
ROTATIONS = tuple(name for name in ABLATIONS if name.startswith("rotation_"))

# What the model sees under each; rotations move the options on.
SEEN = {
    PLAIN: "everything",
    "no_frames": "black frames",
    "no_subtitles": "no subtitles",
    "neither": "black frames and no subtitles",
    "one_frame": "the middle frame, repeated",
    "shuffled": "the frames in another order",
}


def seen_under(ablation: str) -> str:
    """In words."""
    return SEEN.get(ablation) or f"everything, the options moved on by {rotation_of(ablation)}"


def of_task(task: Task) -> tuple[str, ...]:
    """Those that change something: with four options there are three ways to move them on, and without words none."""
    most = [name for name in ABLATIONS if rotation_of(name) < task.max_choices]
    return tuple(name for name in most if task.subtitles or name not in ("no_subtitles", "no_frames"))


def read_names(text: str, task: Task = CINEPILE) -> tuple[str, ...]:
    """The ablations that `none`, `all` or names between commas or spaces stand for, in ABLATIONS' order."""
    words = text.replace(",", " ").split()
    if words in ([], [PLAIN]):
        return ()
    choices = of_task(task)[1:]
    if words == ["all"]:
        return choices
    unknown = [word for word in words if word not in choices]
    if unknown:
        known = ", ".join(choices)
        raise InputError(f"evaluate.ablations names {unknown[0]!r}: write none, all, or some of {known}.")
    return tuple(name for name in ABLATIONS if name in words)


def names_of(chosen: EvaluateParams, is_pipeline: bool = False, task: Task = CINEPILE) -> tuple[str, ...]:
    """What one run evaluates, the one that gives the run its metrics first.

    Raises InputError for another model or an ablation in the pipeline, and for an ablation beside a list of them.
    """
    others = read_names(chosen.ablations, task)
    if chosen.ablation not in of_task(task):
        known = ", ".join(of_task(task))
        raise InputError(
            f"evaluate.ablation={chosen.ablation!r} changes nothing in these questions: choose from {known}."
        )
    if is_pipeline and chosen.model not in PIPELINE_MODELS:
        raise InputError(f"evaluate: --pipeline needs --model {' or --model '.join(PIPELINE_MODELS)}.")
    if is_pipeline and (chosen.ablation != PLAIN or others):
        key = "ablations" if others else "ablation"
        value = getattr(chosen, key)
        raise InputError(
            f"evaluate.{key} is {value!r} in {PARAMS}, but the pipeline evaluates whole models: set it to none and run "
            f"`mlflow run . -e evaluate -P {key}={value}`."
        )
    if is_pipeline and chosen.prompt:
        raise InputError(
            f"evaluate.prompt is {chosen.prompt!r} in {PARAMS}, a file that DVC does not know: leave it empty and run "
            f"`mlflow run . -e evaluate -P prompt={chosen.prompt}`."
        )
    if others and chosen.ablation != PLAIN:
        raise InputError(
            f"evaluate.ablation={chosen.ablation!r} and evaluate.ablations={chosen.ablations!r} exclude each other: "
            "leave ablation at none, for the drops are taken from the plain evaluation."
        )
    return (chosen.ablation, *others)


def names_for(params: Params, is_pipeline: bool = False) -> tuple[str, ...]:
    """`names_of` with the task of the data that the params name."""
    return names_of(params.evaluate, is_pipeline, description.of_folder(params.data.root))


def view_of(ablation: str) -> str:
    """The ablation that shows the same of a clip and leaves the questions alone."""
    return PLAIN if ablation in ROTATIONS else ablation


def show(view: str, clip_id: str, subtitles: str, frames: np.ndarray) -> tuple[str, np.ndarray]:
    """What the model is shown of a clip; frames: uint8 [num_frames, size, size, 3].

    The number of frames is part of the prompt, so it stays: withheld ones are black, and one frame is the middle
    one over and over. Shuffled frames come in an order of the clip's own that is never the true one.
    """
    if view in ("neither", "no_subtitles"):
        subtitles = ""
    if view in ("neither", "no_frames"):
        frames = np.zeros_like(frames)
    if view == "one_frame":
        frames = np.repeat(frames[len(frames) // 2][None], len(frames), axis=0)
    if view == "shuffled":
        frames = frames[_shuffled_order(clip_id, len(frames))]
    return subtitles, frames


def rotation_of(ablation: str) -> int:
    """By how many places the options move up: option k + rotation of the data stands at place k."""
    return int(ablation.removeprefix("rotation_")) if ablation in ROTATIONS else 0


def rotate(choices: Sequence[T], places: int) -> tuple[T, ...]:
    places = places % len(choices) if choices else 0
    return (*choices[places:], *choices[:places])


def _shuffled_order(clip_id: str, count: int) -> np.ndarray:
    generator = np.random.default_rng(crc32(clip_id.encode()))
    order = generator.permutation(count)
    while count > 1 and (order == np.arange(count)).all():
        order = generator.permutation(count)
    return order
