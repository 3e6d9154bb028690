"""Fine-tune LoRA adapters on packs of one clip and its questions.

Takes cache/frames/, <data.root>/questions/train.parquet and the base model; makes outputs/adapter/ (by hand:
outputs/runs/<run id>/adapter/): the adapter of the best validation accuracy, with its params and prompt.
Run it with `dvc repro train`, or by hand with `mlflow run . -e train -P learning_rate=1e-3`; `-P processes=2` trains
in two processes, `-P resume=true` goes on after a training that was stopped, `--dry-run` says what it would take.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune import pipeline
from cinetune.cli import parse
from cinetune.experiments import pruning
from cinetune.params import Params
from cinetune.runtime import checkpoints, distributed

if TYPE_CHECKING:
    from cinetune.tracking.runs import Tracker
    from cinetune.training.session import Inputs


def run(params: Params, is_pipeline: bool = False) -> Path | None:
    """The adapter's folder; None in other processes than the first, and for a trial of a sweep that was pruned."""
    from cinetune.training import session

    with ExitStack() as stack:
        tracked = stack.enter_context(pipeline.started("train", params, is_pipeline=is_pipeline))
        stack.enter_context(distributed.joined())
        inputs = work = None
        if distributed.is_first():
            # Wrong data is told before the seconds that the model's libraries take, and once.
            inputs = session.Inputs.read(params, pipeline.open_frames)
            work = _begin(params, inputs, tracked, is_pipeline, stack)
        work = distributed.share(work)
        inputs = inputs or session.Inputs.read(params, pipeline.open_frames)
        try:
            result = session.fit(params, inputs, work, pruning.judged(tracked.log_metrics))
        except pruning.Pruned as pruned:
            if distributed.is_first():
                # Not worth more time: the run says so, and no adapter is left.
                tracked.set_tags({"pruned": str(pruned)})
                shutil.rmtree(work)
                print(f"train: pruned, {pruned}.")
            return None
        if not distributed.is_first():
            return None
        target = pipeline.ADAPTER if is_pipeline else pipeline.RUNS / tracked.id / "adapter"
        summary = session.save(params, inputs, result, target)
        tracked.log_metrics({f"best/{key}": summary[key] for key in ("best_step", "validation_accuracy")}, result.steps)
        tracked.set_tags({"check/attention": result.attention, **inputs.tags})
        tracked.log_artifacts(target, "adapter")
        said = f"{target}, validation accuracy {result.validation_accuracy:.1%} at step {result.best_step}"
        tracked.describe(f"{said} of {result.steps}.\n\n{session.describe(summary)}")
        print(f"train: {said}.")
        shutil.rmtree(work)
        return target


def _begin(params: Params, inputs: Inputs, tracked: Tracker, is_pipeline: bool, stack: ExitStack) -> Path:
    """The folder of this training's checkpoints, a new one or one to resume, held by this process."""
    from cinetune.training import session

    made_by = session.identity(params, inputs, pipeline.FRAMES)
    root = params.train.checkpoints
    work, resumed = checkpoints.prepare(Path(root), tracked.id, made_by, is_pipeline, params.train.resume)
    if resumed and is_pipeline:
        tracked.set_tags({"resumed": resumed})
    elif resumed:
        tracked.resume(resumed)
    stack.enter_context(checkpoints.held(work))
    stack.callback(checkpoints.discard_unless_saved, work)
    tracked.log_params(session.settings_of(params))
    pipeline.log_training_questions(tracked, params)
    return work


def main(argv: Sequence[str]) -> int:
    arguments = parse(argv, "train", __doc__, has_pipeline=True)
    if arguments.params.train.dry_run:
        from cinetune.runtime import cost

        print(*pipeline.dry_run("train", arguments.params, cost.describe, arguments.is_pipeline), sep="\n")
        return 0
    wanted = arguments.params.train.processes
    if wanted > 1 and distributed.count() == 1:
        return distributed.launch(["train", *argv], wanted)
    run(arguments.params, arguments.is_pipeline)
    return 0
