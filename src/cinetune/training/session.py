"""One training from its params: its data, its identity, and the adapter that comes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import provenance
from cinetune.artifacts import writing_adapter
from cinetune.files import content_digest, text_digest
from cinetune.frames.store import FrameStore
from cinetune.model.lookup import measure_base
from cinetune.params import Params
from cinetune.runtime import checkpoints, distributed
from cinetune.task import data_card, description, groups, prompts, questions
from cinetune.task.description import Task
from cinetune.task.questions import ClipQuestions

if TYPE_CHECKING:
    from cinetune.training.trainer import TrainingResult

logger = logging.getLogger(__name__)

# All that decides an adapter's bytes. Others must not be saved with it: DVC does not train again for them.
SECTIONS = ("data", "model", "prompt", "frames", "train")
# How a training is run, which its result does not tell.
HOW = (
    "processes", "resume", "checkpoint_minutes", "checkpoints", "dry_run", "compile", "activation_checkpointing",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """Clips to train on and to validate on; `clips_missing` have no frames; `base` as it was measured."""

    training_clips: list[ClipQuestions]
    validation_clips: list[ClipQuestions]
    clips_missing: int
    store: FrameStore
    task: Task
    base: Mapping[str, str]

    @property
    def tags(self) -> dict[str, str]:
        """The commit of a base from the hub, for the run."""
        return {"base.commit": self.base["commit"]} if "commit" in self.base else {}

    @classmethod
    def read(cls, params: Params, open_frames: Callable[[Params], FrameStore]) -> Inputs:
        task, clips = description.of_folder(params.data.root), questions.load(params.data.root, "train")
        given = questions.load_validation(params.data.root)
        for split in (*questions.training_splits(params.data.root)[1:], "test"):
            groups.shared_groups([clip.group for clip in clips], "train", params.data.root, split)
        store = open_frames(params)
        seen = store.with_frames(clips)
        train = params.train
        sides = (
            (seen, store.with_frames(given))
            if given
            else groups.split_groups(seen, train.validation_fraction, train.seed, task.group)
        )
        missing = len(clips) + len(given) - sum(map(len, sides))
        return cls(*sides, missing, store, task, _measured_base(params))


def _measured_base(params: Params) -> dict[str, str]:
    """What is known of the base model; warns where another may be loaded next time."""
    base = measure_base(params.model)
    if "commit" in base and not params.model.revision:
        logger.warning(
            "train: model.revision is empty, so %s is taken as it is today, at commit %s: set model.revision to that "
            "to keep it.",
            params.model.base,
            base["commit"],
        )
    return base


def settings_of(params: Params) -> dict[str, dict[str, Any]]:
    """The sections that an adapter is saved with."""
    settings = data_card.named(params).sections(*SECTIONS)
    settings["train"] = {name: value for name, value in settings["train"].items() if name not in HOW}
    return settings


def identity(params: Params, inputs: Inputs, frames: Path) -> dict[str, str]:
    """All that decides the result of a training, by name; frames: the folder of the frame store."""
    clips = sorted([*inputs.training_clips, *inputs.validation_clips], key=lambda clip: clip.clip_id)
    # Where the clips are divided here, the settings decide how.
    is_given = questions.VALIDATION in questions.training_splits(params.data.root)
    held_out = sorted(clip.clip_id for clip in inputs.validation_clips) if is_given else []
    decided = {
        f"{section}.{name}": str(value)
        for section, values in settings_of(params).items()
        for name, value in values.items()
    }
    return decided | {
        "the questions": text_digest(repr((clips, held_out))),
        "the frames": content_digest(frames),
        "the base model": inputs.base["base"],
        "the tokenizer": inputs.base["tokenizer"],
        "the prompt": f"{prompts.template_hash(inputs.task)} {provenance.prompt_code_digest()}",
        "code": provenance.code_digest("train"),
    }


def fit(
    params: Params, inputs: Inputs, work: Path, report: Callable[[int, Mapping[str, float]], None]
) -> TrainingResult:
    """Load the base and fine-tune it, from the last checkpoint in `work` where there is one.

    report: takes metrics with their step. Raises InputError where the base cannot be used or memory runs out.
    """
    from cinetune.model.base import check_frame_size, load_base
    from cinetune.model.encoder import encoder_of
    from cinetune.runtime import memory
    from cinetune.training import trainer

    with memory.explained(f"loading base model {params.model.base!r}"):
        base, tokenizer = load_base(params.model, distributed.device())
    check_frame_size(base.config, params.frames.size)
    encoder = encoder_of(params, base.config, tokenizer, inputs.task)
    checkpoint = checkpoints.last(work)
    if checkpoint is not None and distributed.is_first():
        logger.info("train: resuming from %s.", checkpoint)
    clips = inputs.training_clips, inputs.validation_clips

    def frames_of(clip_id: str) -> Any:
        return inputs.store.read(clip_id).frames

    return trainer.train(base, encoder, *clips, frames_of, params.train, work, report, checkpoint)


def save(params: Params, inputs: Inputs, result: TrainingResult, target: Path) -> dict[str, Any]:
    """Write the adapter's folder; what its training.json holds."""
    from cinetune.model.lora import is_identity, save_adapter

    if is_identity(result.model):
        logger.warning(
            "train: the adapter of step %d changes nothing, for the validation before the first change of weights was "
            "the best: train longer, or with a smaller train.warmup_fraction.",
            result.best_step,
        )
    summary = {
        "best_step": result.best_step,
        "steps": result.steps,
        "validation_accuracy": result.validation_accuracy,
        "dropped_subtitle_tokens": result.dropped_subtitle_tokens,
        "training_clips": len(inputs.training_clips),
        "validation_clips": len(inputs.validation_clips),
        "clips_missing": inputs.clips_missing,
        **({"base": dict(inputs.base)} if "commit" in inputs.base else {}),
    }
    with writing_adapter(target, settings_of(params), summary, inputs.task) as folder:
        save_adapter(result.model, folder)
    return summary


def describe(summary: Mapping[str, Any]) -> str:
    """training.json in sentences."""
    return (
        f"Trained on {summary['training_clips']} clips, validated on {summary['validation_clips']}; "
        f"{summary['clips_missing']} have no frames. "
        f"Subtitles lost {summary['dropped_subtitle_tokens']} tokens by being shortened."
    )
