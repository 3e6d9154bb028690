"""Compare evaluations by their saved predictions: paired differences, intervals, p-values, wins and losses.

Takes `compare.runs`, each held against the first: `base` or `finetuned` (outputs/evaluation/), the folder of an
evaluation or its predictions.parquet, an MLflow run (its id, or runs:/<id>), or models:/<name>@<alias>. Makes
outputs/runs/<run id>/comparison/ with comparison.json, disagreements-<model>.parquet, report.html and report.md. Run
it with `mlflow run . -e compare -P runs="base finetuned"`.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import registry, stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    from cinetune.comparison import Evaluation

RUN_ID = re.compile(r"[0-9a-f]{32}")


def run(params: Params) -> Path:
    """The comparison's folder."""
    chosen = params.compare
    title = stages.run_name("compare", chosen.runs)
    with (
        tracking.start("compare", stages.tags_of(params), name=title) as tracked,
        tempfile.TemporaryDirectory() as scratch,
    ):
        tracked.log_params(stages.sections(params, "compare"))
        names = chosen.runs.replace(",", " ").split()
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InputError(f"compare.runs names {sorted(twice)[0]!r} twice: name different evaluations.")

        from cinetune import comparison

        allowed = comparison.read_allowed(chosen.allow)
        evaluations = [_open(name, Path(scratch) / str(number)) for number, name in enumerate(names)]
        overlooked = comparison.check_alike(evaluations, chosen.scorer, allowed)
        measured = comparison.measure(
            evaluations, chosen.scorer, chosen.bootstrap_samples, chosen.seed, chosen.resample
        )
        target = stages.RUNS / tracked.id / "comparison"
        with stages.whole_folder(target) as folder:
            stages.write_json(folder / "comparison.json", measured)
            for other in evaluations[1:]:
                rows = comparison.disagreements(other, evaluations[0], chosen.scorer)
                rows.to_parquet(folder / f"disagreements-{_file_name(other.name)}.parquet", index=False)
                tracked.log_rows(rows, f"disagreements-{_file_name(other.name)}.json")
            comparison.write(folder, evaluations, measured, overlooked, params.report.reference, _links(params, target))
        said = [
            _log_and_say(name, names[0], difference, tracked) for name, difference in measured["differences"].items()
        ]
        tracked.describe("\n".join(f"- {line}" for line in said))
        tracked.log_artifacts(target, "comparison")
        print(f"compare: {target / 'report.html'}.")
        return target


def _open(name: str, scratch: Path) -> Evaluation:
    """An evaluation by any of its names; what MLflow holds is fetched to `scratch`."""
    import pandas as pd

    from cinetune.comparison import Evaluation

    folder = _folder(name, scratch)
    found = [folder] if (folder / "metrics.json").is_file() else sorted(p.parent for p in folder.rglob("metrics.json"))
    if len(found) != 1:
        problem = "holds no evaluation" if not found else f"holds {len(found)} evaluations"
        raise InputError(
            f"{name!r} {problem}: name base, finetuned, a folder with predictions.parquet and metrics.json, an MLflow "
            "run of evaluate, or models:/<name>@<alias>."
        )
    folder = found[0]
    if not (folder / "predictions.parquet").is_file():
        raise InputError(f"{str(folder)!r} has metrics.json and no predictions.parquet: evaluate {name!r} again.")
    made_from = folder / stages.MADE_FROM
    return Evaluation(
        name,
        pd.read_parquet(folder / "predictions.parquet"),
        stages.read_json(folder / "metrics.json"),
        stages.read_json(made_from) if made_from.is_file() else {},
    )


def _folder(name: str, scratch: Path) -> Path:
    if name in ("base", "finetuned"):
        return stages.EVALUATION / name
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_file():
        return Path(name).parent
    if name.startswith("models:/"):
        return tracking.fetch(f"runs:/{registry.run_of(name)}/evaluation", scratch)
    if name.startswith("runs:/") and "/" in name.removeprefix("runs:/"):
        return tracking.fetch(name, scratch)
    run_id = name.removeprefix("runs:/")
    if RUN_ID.fullmatch(run_id):
        return tracking.fetch(f"runs:/{run_id}/evaluation", scratch)
    raise InputError(
        f"compare.runs names {name!r}, which is no evaluation: name base, finetuned, a folder, an MLflow run's id, "
        "runs:/... or models:/<name>@<alias>; a predictions file made elsewhere is evaluated first."
    )


def _links(params: Params, target: Path) -> Callable[[str], str]:
    """Addresses of clips: the web's as they are, files of the data as seen from the report."""

    def link(url: str) -> str:
        return url if "://" in url else os.path.relpath(Path(params.data.root) / url, target)

    return link


def _log_and_say(
    name: str, against: str, difference: Mapping[str, Any], tracked: tracking.Run | tracking.UntrackedRun
) -> str:
    """What it said."""
    from cinetune import page

    label, overall = _file_name(name), difference["overall"]
    low, high = overall["ci95"] or (None, None)
    figures = {
        f"difference/{label}": overall["difference"],
        f"difference/{label}/ci_low": low,
        f"difference/{label}/ci_high": high,
        f"difference/{label}/p_value": overall["p_value"],
    }
    parts = {short: part["difference"] for short, part in difference["categories"].items()}
    tracked.log_metrics(figures | {f"difference/{label}/{short}": value for short, value in parts.items()})
    said = (
        f"{name} less {against}: {page.points(overall['difference'], overall['ci95'])} points on "
        f"{overall['n']} questions, p {page.p_value(overall['p_value'])} (McNemar), {overall['only_a']} won and "
        f"{overall['only_b']} lost."
    )
    print(f"compare: {said}")
    return said


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[-60:].strip("-.") or "model"


def main(argv: Sequence[str]) -> int:
    run(stages.parse(argv, "compare", __doc__).params)
    return 0
