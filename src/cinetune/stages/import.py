"""Make a data folder of videos and questions of one's own.

Takes question files (CSV, JSON or Parquet, separated by |; `test=<file>` gives a split) with the columns video,
question, choices and answer, and optionally category, group, subtitles, start and end; and a folder of videos. Makes
<out>/questions/{train,test}.parquet, <out>/clips/, <out>/task.yaml, <out>/card.json, <out>/import.json and
<out>/rejected.jsonl with each row that cannot be used. Run it with
`mlflow run . -e import -P questions=mine.csv -P videos=folder -P out=mydata`, then set data.root.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cinetune import pipeline
from cinetune.cli import parse, progress
from cinetune.params import Params
from cinetune.tracking import lifecycle

logger = logging.getLogger(__name__)


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


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "import", __doc__).params)
    return 0
