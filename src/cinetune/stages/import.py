"""Make a data folder of videos and questions of one's own.

Takes question files (CSV, JSON or Parquet, separated by |; `test=<file>` gives a split) with the columns video,
question, choices and answer, and optionally category, group, subtitles, start and end; and a folder of videos. With
`traces` also what people said of MLflow traces, about clips of <data.root>. Makes <out>/questions/{train,test}.parquet,
<out>/clips/, <out>/task.yaml, <out>/card.json, <out>/import.json and <out>/rejected.jsonl with each row that cannot be
used. Run it with
`mlflow run . -e import -P questions=mine.csv -P videos=folder -P out=mydata`, then set data.root.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cinetune import pipeline
from cinetune.cli import parse, progress
from cinetune.errors import InputError
from cinetune.files import write_whole
from cinetune.params import ImportParams, Params
from cinetune.tracking import lifecycle

logger = logging.getLogger(__name__)
ALL = "all"
# Of a question on a trace, beside its clip and the right option.
SAID = ("question", "choices", "category", "group", "subtitles")


def run(params: Params) -> Path:
    """The folder that was filled."""
    from cinetune.data.importing import fetching, importer, summary

    chosen = params.import_
    name = pipeline.run_name("import", chosen.questions, *pipeline.unusual(params, "import", ("questions", "out")))
    with lifecycle.start("import", name=name) as tracked:
        tracked.log_params(params.sections("import"))
        folder = importer.claim(chosen)
        fetched = folder.with_name(f"{folder.name}-fetched")
        fetch = partial(fetching.fetch, folder=fetched, params=params, progress=partial(progress, "import"))
        if chosen.traces:
            chosen = _with_traces(params, folder.with_name(f"{folder.name}-traces.jsonl"))
        imported = importer.run(chosen, fetch, params.frames.timeout_s, params.frames.images_per_s)
        num_rows = imported.found["rows"]
        for line in summary.complaints(imported.rejected, num_rows):
            logger.warning("import: %s", line)
        tracked.log_table({"rejected": list(imported.rejected)}, "rejected.json")
        tracked.log_table(imported.found, "import.json")
        tracked.log_metrics({"rows": num_rows, "rows_rejected": len(imported.rejected)})
        tracked.describe("; ".join(imported.lines))
        print(*(f"import: {line}." for line in imported.lines), sep="\n")
        print(f"import: {importer.name_of(chosen)} is ready: set data.root to {folder}.")
        return folder


def _with_traces(params: Params, file: Path) -> ImportParams:
    """The questions that people answered on traces among the others, in a file of their own; of clips of the data."""
    from cinetune.task.description import Task
    from cinetune.tracking.traces.corrections import corrections

    chosen = params.import_
    named = None if chosen.traces == ALL else [name for part in chosen.traces.split(",") if (name := part.strip())]
    rows, refused = corrections(named, Task())
    for trace, reason in refused.items():
        logger.warning("import: trace %s: %s.", trace, reason)
    if not rows:
        raise InputError("import.traces: no trace has a person's verdict that makes a question: docs/ui.md tells how.")
    plain = [
        {"video": row["clip_id"], "answer": row["answer_text"], **{name: row[name] for name in SAID}} for row in rows
    ]
    write_whole(file, "".join(f"{json.dumps(row)}\n" for row in plain).encode())
    logger.info("import: %d questions of traces are in %s.", len(rows), file)
    sources = "|".join(filter(None, (chosen.questions, str(file))))
    videos = chosen.videos or str(Path(params.data.root) / pipeline.CLIPS)
    return replace(chosen, questions=sources, videos=videos)


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "import", __doc__).params)
    return 0
