"""Make CinePile-mini: short drawn films with questions in CinePile's columns. Or the second example, drawn cameras.

Takes nothing but the section `mini` of params.yaml; makes <data.root>/questions/, clips/ and clips.parquet (of cameras
task.yaml in the last one's place), the same bytes for the same parameters. Run it with `python -m cinetune mini`, or
with `python -m cinetune mini --params recipes/cameras.yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cinetune.cli import parse
from cinetune.params import Params


def run(params: Params) -> dict[str, int]:
    from cinetune.data.mini import cameras, dataset

    maker = cameras if params.mini.task == "cameras" else dataset
    counts = maker.make(Path(params.data.root), params.mini, params.frames.workers)
    print(f"mini: {', '.join(f'{count} {name}' for name, count in counts.items())} in {params.data.root}.")
    return counts


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "mini", __doc__).params)
    return 0
