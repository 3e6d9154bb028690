"""Write a fine-tuned model as a folder that other programs open: vLLM, SGLang, transformers, PEFT.

Takes a version (models:/...), a run's adapter (runs:/...) or an adapter folder, its base model, the questions of the
test split and cache/frames/; makes outputs/export/<to>/ with weights, what belongs to them, a model card and
proof.json. An export that is not the same model is not kept. Run it with
`mlflow run . -e export -P model=models:/cinepile-video-llava@champion -P to=llava`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cinetune import pipeline
from cinetune.cli import parse
from cinetune.params import Params
from cinetune.tracking import lifecycle, queries

SECTIONS = ("export", "model", "prompt", "frames")
SPLIT = "test"
ADDRESSES = ("runs:/", "models:/")
LOGGED = ("largest_difference", "rounding_step", "largest_difference_from_packs", "same_letters", "questions")


def run(params: Params) -> dict[str, Any]:
    """What proof.json says."""
    from cinetune.export import exporting, hub
    from cinetune.export.source import Source
    from cinetune.task import questions

    chosen = params.export
    target = exporting.target_of(chosen)
    if chosen.push:
        hub.check(chosen.push)
    name = pipeline.run_name("export", chosen.model, chosen.to)
    with (
        lifecycle.start("export", {"exported": chosen.model}, name=name) as tracked,
        tempfile.TemporaryDirectory() as scratch,
    ):
        fixed = queries.fixed(chosen.model)
        folder = queries.fetch(fixed, Path(scratch)) if fixed.startswith(ADDRESSES) else Path(fixed)
        source = Source.open(folder, fixed, params)
        tracked.log_params(source.params.sections(*SECTIONS))
        clips = questions.load(params.data.root, SPLIT)
        store = pipeline.open_frames(source.params)
        seen = store.with_frames(clips)
        proven = exporting.export(source, chosen, seen, lambda clip_id: store.read(clip_id).frames, target)
        tracked.log_metrics({name: float(proven[name]) for name in LOGGED})
        tracked.log_table(proven, exporting.PROOF)
        tracked.set_tags({"version": fixed, **proven["made_from"]})
        said = (
            f"{fixed} as {chosen.to} in {target}: {proven['same_letters']} of {proven['questions']} letters the same, "
            f"logits within {proven['largest_difference']:.2g}"
        )
        tracked.describe(said)
        print(f"export: {said}.")
        if chosen.push:
            print(f"export: pushed to {hub.push(target, chosen.push)}.")
        return proven


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "export", __doc__).params)
    return 0
