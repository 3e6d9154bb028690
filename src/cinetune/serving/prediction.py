"""One question about one video file or clip, put to a service; wrong ones are refused before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune.data import subtitles
from cinetune.errors import InputError
from cinetune.params import Params, PredictParams
from cinetune.runtime import observation
from cinetune.serving import sources
from cinetune.serving.sources import CLIP
from cinetune.task.checks import check_choices
from cinetune.task.description import Task

if TYPE_CHECKING:
    from cinetune.frames.sampling import ClipFrames
    from cinetune.serving.service import Service

NAMED = "a video file, a folder of images, or a clip of the data as clip:<clip_id>"


def open_service(params: Params, load_model: Callable[[str], Any]) -> Service:
    """That of an adapter folder with the settings it was trained with, or of a version, a pyfunc of `load_model`."""
    from cinetune.artifacts import Adapter
    from cinetune.serving.service import Service

    if Path(params.predict.model).is_dir():
        return Service.of_adapter(Adapter.open(params.predict.model), params)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    service: Service = load_model(params.predict.model).unwrap_python_model().service
    return service


def check(asked: PredictParams) -> None:
    """Raises InputError for what is wrong before anything is loaded."""
    if not asked.video:
        raise InputError(f"predict.video is empty: name {NAMED}, or a table.")
    if not asked.video.startswith(CLIP) and not Path(asked.video).exists():
        raise InputError(f"video {asked.video!r} does not exist: name {NAMED}.")
    if not asked.question.strip():
        raise InputError('predict.question is empty: ask something, as in -P question="Who leaves first?".')
    if asked.end and asked.end <= asked.start:
        raise InputError(f"predict.end is {asked.end:g} s, not after predict.start ({asked.start:g} s): set it later.")
    file = Path(asked.subtitles)
    if asked.subtitles.lower().endswith(subtitles.SUFFIXES) and not file.is_file():
        raise InputError(f"subtitles {asked.subtitles!r} do not exist: name a file, or give the words themselves.")


def read_choices(choices: str, task: Task) -> tuple[str, ...] | None:
    """Options between |; None for an open question. Raises InputError for what cannot be asked of a task's model."""
    if not choices.strip():
        return None
    options = [choice.strip() for choice in choices.split("|")]
    reason = check_choices(options, task)
    if reason:
        raise InputError(f"{reason}; separate options by |, or give none for an open question.")
    return tuple(options)


def answer(asked: PredictParams, service: Service) -> tuple[ClipFrames, dict[str, Any]]:
    """The frames that were looked at, and the answer as the server would give it."""
    with observation.recording():
        return _answer(asked, service)


def _answer(asked: PredictParams, service: Service) -> tuple[ClipFrames, dict[str, Any]]:
    from cinetune.frames.decoder import Decoder
    from cinetune.frames.images.decoder import ImageDecoder
    from cinetune.frames.limits import Limits
    from cinetune.frames.sampling import FrameSettings
    from cinetune.inference.scoring import QuestionPrompt

    question = QuestionPrompt(asked.question, read_choices(asked.choices, service.task))
    source = _find(asked.video, service)
    part = (asked.start, asked.end) if asked.start or asked.end else None
    limits, is_images = Limits.of(service.frames), isinstance(source, Path) and source.is_dir()
    decoders: Any = ImageDecoder(limits, service.frames.images_per_s) if is_images else Decoder(limits)
    with decoders as decoder, observation.span(observation.DECODING):
        clip = decoder.read(source, FrameSettings.of(service.frames), asked.video, part)
    return clip, service.ask(clip, _read_subtitles(asked, service), question)


def _find(video: str, service: Service) -> Path | bytes:
    """A clip's bytes, or a file or a folder of images."""
    if not video.startswith(CLIP):
        return Path(video)
    clip_id = video.removeprefix(CLIP)
    if service.has_image_clips:
        return sources.find_images(service.clips_folder, clip_id)
    return sources.read_clip(service.clips_folder, clip_id)


def _read_subtitles(asked: PredictParams, service: Service) -> str:
    end = asked.end or float("inf")
    if asked.subtitles.lower().endswith(subtitles.SUFFIXES):
        return subtitles.read_file(Path(asked.subtitles), asked.start, end)
    if asked.subtitles or not Path(asked.video).is_file():
        return asked.subtitles
    return subtitles.embedded(Path(asked.video), asked.start, end, service.frames.timeout_s)
