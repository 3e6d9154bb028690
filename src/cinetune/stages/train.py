"""Fine-tune LoRA adapters on packs of one clip and its questions.

Takes cache/frames/, <data.root>/questions/train.parquet and the base model; makes outputs/adapter/ (by hand:
outputs/runs/<run id>/adapter/): the adapter of the best validation accuracy, with its params and prompt.
Run it with `dvc repro train`, or by hand with `mlflow run . -e train -P learning_rate=1e-3`; `-P processes=2` trains
in two processes, `-P resume=true` goes on after a training that was stopped, `--dry-run` says what it would take.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import checkpoints, processes, provenance, pruning, stages, tracking
from cinetune.params import Params

if TYPE_CHECKING:
    from cinetune.estimates import Planned
    from cinetune.frame_store import FrameStore
    from cinetune.packing import Encoder
    from cinetune.questions import ClipQuestions
    from cinetune.training import TrainingResult

# All that decides an adapter's bytes. Others must not be saved with it: DVC does not train again for them.
SECTIONS = ("data", "model", "prompt", "frames", "train")
# How a training is run, which its result does not tell.
HOW = ("processes", "resume", "dry_run", "compile", "activation_checkpointing")
CODE = (
    "attention", "float8", "frames", "layers", "model", "packing", "planning", "prompts", "questions", "scoring",
    "training",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    training_clips: list[ClipQuestions]
    validation_clips: list[ClipQuestions]
    clips_missing: int
    store: FrameStore


def run(params: Params, is_pipeline: bool = False) -> Path | None:
    """The adapter's folder; None in other processes than the first, and for a trial of a sweep that was pruned."""
    name = stages.run_name("train", *stages.unusual(params, "train"))
    with tracking.start("train", stages.tags_of(params, is_pipeline), name=name) as tracked, ExitStack() as stack:
        stack.enter_context(processes.joined())
        inputs = work = None
        if processes.is_first():
            # Wrong data is told before the seconds that the model's libraries take, and once.
            inputs = _read_inputs(params)
            work = _begin(params, inputs, tracked, is_pipeline)
            stack.enter_context(checkpoints.held(work))
            stack.callback(checkpoints.discard_unless_saved, work)
            tracked.log_params(_settings(params))
            stages.log_questions(tracked, params, "train", "train")
        work = processes.share(work)
        inputs = inputs or _read_inputs(params)
        try:
            result = _train(params, inputs, work, tracked)
        except pruning.Pruned as pruned:
            if processes.is_first():
                _prune(str(pruned), work, tracked)
            return None
        if not processes.is_first():
            return None
        target = stages.ADAPTER if is_pipeline else stages.RUNS / tracked.id / "adapter"
        _finish(params, inputs, result, target, tracked)
        shutil.rmtree(work)
        return target


def _read_inputs(params: Params) -> Inputs:
    from cinetune import questions

    clips = questions.load(params.data.root, "train")
    store = stages.open_frames(params)
    seen = stages.with_frames(clips, store)
    training_clips, validation_clips = questions.split_films(seen, params.train.validation_fraction, params.train.seed)
    return Inputs(training_clips, validation_clips, len(clips) - len(seen), store)


def _begin(params: Params, inputs: Inputs, tracked: tracking.Run | tracking.UntrackedRun, is_pipeline: bool) -> Path:
    """The folder of this training's checkpoints: a new one, or that of the training to go on with."""
    made_by = _made_by(params, inputs)
    if is_pipeline:
        work = stages.CHECKPOINTS / "pipeline"
        begun = checkpoints.read(work)
        if begun is None or checkpoints.first_difference(begun[1], made_by) is not None:
            shutil.rmtree(work, ignore_errors=True)
        elif checkpoints.last(work) is not None:
            tracked.set_tags({"resumed": begun[0]})
    elif params.train.resume:
        # A repaired program may go on with what the broken one began.
        work = checkpoints.find(stages.CHECKPOINTS, made_by, may_differ=["code"])
        run_id, _ = checkpoints.read(work)
        tracked.go_on(run_id)
    else:
        work = stages.CHECKPOINTS / tracked.id
    checkpoints.begin(work, tracked.id, made_by)
    return work


def _made_by(params: Params, inputs: Inputs) -> dict[str, str]:
    """All that decides the result of a training, by name."""
    from cinetune import prompts

    base = Path(params.model.base)
    clips = sorted([*inputs.training_clips, *inputs.validation_clips], key=lambda clip: clip.clip_id)
    decided = {
        f"{section}.{name}": str(value)
        for section, values in _settings(params).items()
        for name, value in values.items()
    }
    sources = (Path(__file__).parents[1] / f"{name}.py" for name in CODE)
    return decided | {
        "the questions": provenance.text_digest(repr(clips)),
        "the frames": provenance.quick_digest(stages.FRAMES),
        "the base model": provenance.quick_digest(base) if base.is_dir() else "",
        "the prompt": prompts.template_hash(),
        "code": provenance.text_digest("".join(path.read_text(encoding="utf-8") for path in sources)),
    }


def _settings(params: Params) -> dict[str, dict[str, Any]]:
    settings = stages.sections(params, *SECTIONS)
    settings["train"] = {name: value for name, value in settings["train"].items() if name not in HOW}
    return settings


def _train(params: Params, inputs: Inputs, work: Path, tracked: tracking.Run | tracking.UntrackedRun) -> TrainingResult:
    from cinetune import memory, model, training

    model.check_base(params.model.base)
    with memory.explained(f"loading base model {params.model.base!r}"):
        base, tokenizer = model.load_base(params.model, processes.device())
    model.check_frame_size(base.config, params.frames.size)
    encoder = model.encoder_of(params, base.config, tokenizer)

    judge = pruning.judge()

    def report(step: int, metrics: Mapping[str, float]) -> None:
        tracked.log_metrics(metrics, step)
        if "validation/accuracy" in metrics:
            judge(metrics["validation/accuracy"])

    def frames_of(clip_id: str) -> Any:
        return inputs.store.read(clip_id).frames

    checkpoint = checkpoints.last(work)
    if checkpoint is not None and processes.is_first():
        print(f"train: going on from {checkpoint}.", file=sys.stderr)
    clips = inputs.training_clips, inputs.validation_clips
    return training.train(base, encoder, *clips, frames_of, params.train, work, report, checkpoint)


def _prune(reason: str, work: Path, tracked: tracking.Run | tracking.UntrackedRun) -> None:
    """End a trial that is not worth more time: its run says so, and it leaves no adapter."""
    tracked.set_tags({"pruned": reason})
    shutil.rmtree(work)
    print(f"train: pruned, {reason}.")


def _finish(
    params: Params,
    inputs: Inputs,
    result: TrainingResult,
    target: Path,
    tracked: tracking.Run | tracking.UntrackedRun,
) -> None:
    from cinetune import model, prompts

    summary = {
        "best_step": result.best_step,
        "steps": result.steps,
        "validation_accuracy": result.validation_accuracy,
        "dropped_subtitle_tokens": result.dropped_subtitle_tokens,
        "training_clips": len(inputs.training_clips),
        "validation_clips": len(inputs.validation_clips),
        "clips_missing": inputs.clips_missing,
    }
    with stages.whole_folder(target) as folder:
        model.save_adapter(result.model, folder)
        stages.write_json(folder / stages.MADE_WITH, _settings(params))
        stages.write_json(folder / stages.PROMPT, prompts.template())
        stages.write_json(folder / "training.json", summary)
    tracked.log_metrics({f"best/{name}": summary[name] for name in ("best_step", "validation_accuracy")}, result.steps)
    tracked.log_artifacts(target, "adapter")
    said = f"{target}, validation accuracy {result.validation_accuracy:.1%} at step {result.best_step}"
    tracked.describe(f"{said} of {result.steps}.\n\n{_counts(summary)}")
    print(f"train: {said}.")


def _counts(summary: Mapping[str, Any]) -> str:
    return (
        f"Trained on {summary['training_clips']} clips, validated on {summary['validation_clips']}; "
        f"{summary['clips_missing']} have no frames. "
        f"Subtitles lost {summary['dropped_subtitle_tokens']} tokens by being shortened."
    )


def _tell(params: Params) -> None:
    """What the training would take; neither weights nor frames are read, and no hub is asked."""
    from cinetune import estimates, model

    model.check_base(params.model.base)
    config, tokenizer, is_own = estimates.base_shape(params.model)
    notes = [] if is_own else [estimates.base_note(params.model)]
    if _has_questions(params):
        encoder = model.encoder_of(params, config, tokenizer)
        planned = _plan(params, encoder)
    else:
        planned = estimates.published_plan(params, config)
        notes.append(estimates.questions_note(params.data))
    found = estimates.estimate(planned.plan, estimates.size_of(config, params.train.lora_rank), params)
    speed = estimates.matrix_flops(model.default_device(), params.model.dtype)
    print(*estimates.lines(planned, found, params, speed, notes), sep="\n")


def _has_questions(params: Params) -> bool:
    """Whether the questions are here, or are of data that nothing can stand in for, and so must be."""
    from cinetune import published

    path = Path(params.data.root) / "questions" / "train.parquet"
    return path.is_file() or published.version_of(params.data.name) is None


def _plan(params: Params, encoder: Encoder) -> Planned:
    from cinetune import estimates, planning, questions

    train = params.train
    clips = questions.load(params.data.root, "train")
    training_clips, validation_clips = questions.split_films(clips, train.validation_fraction, train.seed)
    limits = train.questions_per_pack, train.tokens_per_pack, train.open_questions_per_pack
    plan = planning.plan(training_clips, encoder, *limits)
    return estimates.Planned(plan, len(training_clips), len(validation_clips))


def main(argv: Sequence[str]) -> int:
    arguments = stages.parse(argv, "train", __doc__, has_pipeline=True)
    if arguments.params.train.dry_run:
        _tell(arguments.params)
        return 0
    wanted = arguments.params.train.processes
    if wanted > 1 and processes.count() == 1:
        return processes.launch(["train", *argv], wanted)
    run(arguments.params, arguments.is_pipeline)
    return 0
