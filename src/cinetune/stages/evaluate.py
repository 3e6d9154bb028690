"""Answer a split's questions and score the answers three ways.

Takes cache/frames/, <data.root>/questions/<split>.parquet and a model: `finetuned` (outputs/adapter), `base`,
an adapter folder, a `runs:/` or `models:/` address, `random`, `longest-option`, a predictions file, whose words
are scored anew, or `openai:<base url>#<model>`, any model behind a server of OpenAI's protocol. Makes
outputs/evaluation/{base,finetuned}/ (by hand: outputs/runs/<run id>/evaluation/<model>[-<ablation>]/) with
predictions.parquet and metrics.json. Run it with `dvc repro`, or by hand with `mlflow run . -e evaluate`. A run that
was killed resumes where it was; `torchrun --nproc-per-node 2 -m cinetune evaluate` shares the clips out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import pipeline
from cinetune.cli import parse, progress
from cinetune.params import Params
from cinetune.tracking import lifecycle, queries

if TYPE_CHECKING:
    from cinetune.tracking.runs import Tracker

SECTIONS = ("data", "model", "prompt", "frames", "evaluate")


def run(params: Params, is_pipeline: bool = False) -> Path | None:
    """The evaluation's folder; None in the processes that only share the work."""
    from cinetune.artifacts import Evaluation
    from cinetune.evaluation import ablation_effects, ablations, metrics
    from cinetune.inference import evaluator
    from cinetune.inference import subject as subjects
    from cinetune.report import ablation_report
    from cinetune.tracking import results

    names = ablations.names_for(params, is_pipeline)
    tags = {"evaluated": params.evaluate.model}
    with ExitStack() as stack:
        tracked = stack.enter_context(_started(params, names[0], tags=tags, is_pipeline=is_pipeline))
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        subject = subjects.resolve(params, names, pipeline.ADAPTER, lambda uri: queries.fetch(uri, Path(scratch)))
        made_from = subjects.made_from(subject, params, pipeline.FRAMES)
        # That of the questions unless the adapter has one of its own, or is given one.
        tags["prompt.hash"] = made_from["prompt_hash"]
        tracked.set_tags(tags)
        tables, notes = evaluator.predict(
            subject,
            params,
            names,
            made_from,
            frames=lambda: pipeline.open_frames(params),
            checkpoints=pipeline.CHECKPOINTS,
            begin=lambda journal: lifecycle.take_over(tracked, journal.take_over),
            stack=stack,
            progress=lambda total: progress(f"evaluate {subject.label}", total),
        )
        folder = pipeline.EVALUATION if is_pipeline else pipeline.RUNS / tracked.id / "evaluation"
        summaries = {}
        for name, table in tables.items():
            summary = metrics.summarise_for(params, name, table, subject.title, subject.adapter is not None)
            summaries[name] = summary | subject.notes | notes.get(name, {})
            target = folder / subject.folder_name(name)
            evaluation = Evaluation(subject.title, table, summaries[name], made_from)
            evaluation.write(target)
            with ExitStack() as below:
                child = tracked
                if name != names[0]:
                    of_child = tags | {"ablation": name}
                    child = below.enter_context(_started(params, name, tags=of_child, parent=tracked))
                print(*(f"evaluate: {line}" for line in results.log_evaluation(child, target, evaluation)), sep="\n")
                results.trace_sample(child, params, evaluation, lambda: pipeline.open_frames(params))
        if len(tables) > 1:
            measured = ablation_effects.measure_for(params, tables, summaries)
            target = folder / f"{subject.label}-ablations"
            ablation_report.write(target, measured)
            results.log_ablations(tracked, target, measured)
            print(ablation_report.console(measured), f"evaluate: {target / 'report.html'}.", sep="\n\n")
        return folder / subject.folder_name(names[0]) if tables else None


def _started(params: Params, ablation: str, **options: Any) -> AbstractContextManager[Tracker]:
    """A run with its inputs logged; one below `parent` for each further ablation."""
    chosen = params.override("evaluate", {"ablation": ablation})
    named = [chosen.evaluate.model, *([] if ablation == "none" else [ablation])]
    known = ("model", "ablation", "ablations")
    return pipeline.started("evaluate", chosen, SECTIONS, [chosen.evaluate.split], named=named, known=known, **options)


def main(argv: Sequence[str]) -> int:
    arguments = parse(argv, "evaluate", __doc__, has_pipeline=True, free=("model",))
    run(arguments.params, arguments.is_pipeline)
    return 0
