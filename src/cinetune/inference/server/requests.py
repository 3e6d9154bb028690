"""What a server is asked: each question of a split as one message, with its clip's frames or its video."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cinetune.errors import InputError
from cinetune.evaluation import ablations as ablations_module
from cinetune.frames.store import FrameStore
from cinetune.params import EvaluateParams
from cinetune.task import messages
from cinetune.task.description import Task
from cinetune.task.questions import ClipQuestions

FRAMES, VIDEO = "frames", "video"
# A video can be sent as it is or not at all.
VIEWS_OF_VIDEO = (ablations_module.PLAIN, "no_subtitles")
# As many as OpenAI's protocol allows: the letters are to be among them.
TOP_LOGPROBS = 20

Media = list[dict[str, Any]]
# A clip's parts of a message under a view, and the subtitles that go with them.
Shown = Callable[[ClipQuestions, str], tuple[str, Media]]


@dataclass(frozen=True, eq=False)
class Job:
    """One question under one ablation, and the request that asks it."""

    clip_id: str
    question_id: str
    ablation: str
    body: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.question_id, self.ablation


def jobs_of(
    clips: Sequence[ClipQuestions],
    task: Task,
    ablations: Sequence[str],
    done: set[tuple[str, str]],
    shown: Shown,
    body: Callable[[Media], dict[str, Any]],
) -> Iterator[Job]:
    """Those questions that are not done, clip by clip; each clip is prepared once for each way of showing it.

    body: makes a request of a message's parts.
    """
    for clip in clips:
        for view in dict.fromkeys(ablations_module.view_of(name) for name in ablations):
            wanted = [
                (name, question)
                for name in ablations
                if ablations_module.view_of(name) == view
                for question in clip.questions
                if (question.question_id, name) not in done
            ]
            subtitles, media = shown(clip, view) if wanted else ("", [])
            for name, question in wanted:
                choices = ablations_module.rotate(question.choices, ablations_module.rotation_of(name)) or None
                before, after = messages.write(subtitles, question.text, choices, task)
                parts = [{"type": "text", "text": before}, *media, {"type": "text", "text": after}]
                yield Job(clip.clip_id, question.question_id, name, body(parts))


def body_of(model: str, chosen: EvaluateParams, changes: Mapping[str, Any]) -> Callable[[Media], dict[str, Any]]:
    """A request of a message's parts; `changes` takes the place of ours, a None leaves ours out."""
    ours = {"temperature": 0, "max_tokens": chosen.max_new_tokens, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
    settings = {name: value for name, value in (ours | dict(changes)).items() if value is not None}

    def body(parts: Media) -> dict[str, Any]:
        return {"model": model, "messages": [{"role": "user", "content": parts}], **settings}

    return body


def of_frames(store: FrameStore) -> Shown:
    """Frames as the model of this project sees them, without loss."""

    def shown(clip: ClipQuestions, view: str) -> tuple[str, Media]:
        frames = store.read(clip.clip_id).frames
        subtitles, frames = ablations_module.show(view, clip.clip_id, clip.subtitles, frames)
        return subtitles, [{"type": "image_url", "image_url": {"url": _png(frame)}} for frame in frames]

    return shown


def of_videos(clips: Path) -> Shown:
    """The clips' own files."""

    def shown(clip: ClipQuestions, view: str) -> tuple[str, Media]:
        content = base64.b64encode((clips / f"{clip.clip_id}.mp4").read_bytes()).decode()
        subtitles = clip.subtitles if view == ablations_module.PLAIN else ""
        return subtitles, [{"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{content}"}}]

    return shown


def check_views(sends: str, ablations: Sequence[str]) -> None:
    """Raises InputError for an ablation that would change a video."""
    for name in ablations:
        if sends == VIDEO and ablations_module.view_of(name) not in VIEWS_OF_VIDEO:
            raise InputError(f"the ablation {name!r} changes frames: set evaluate.server_sends to {FRAMES}.")


def _png(frame: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
