"""Ask the registered model, or an adapter folder, one question about one video.

Takes --video (a video file, or clip:<clip_id> of the data), --question, --choices "a|b|c|d|e" for multiple choice,
--subtitles (an .srt, .vtt, .ass or .txt file, or the words; left out, the video's own track is read) and, of a long
video, --start and --end in seconds. Makes outputs/runs/<run id>/predict/ with the answer and a sheet of the frames that
the model was shown, logs both and a trace, and prints one line of JSON: answer, choice, confidence, raw, error. Run it
with `mlflow run . -e predict -P video=film.mp4 -P question="Who leaves first?"`.

With --table (a CSV, JSON or Parquet file with the columns video, question and choices), --videos (the folder of the
videos) and --out, all its rows are answered into that file, with a reason for each that cannot be; a run that was
killed resumes where it was.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from cinetune import pipeline, provenance
from cinetune.cli import parse, progress
from cinetune.errors import InputError
from cinetune.files import text_digest, whole_folder, write_json
from cinetune.params import Params
from cinetune.tracking import lifecycle, queries, registry

logger = logging.getLogger(__name__)

SHEET, ANSWER = "frames.png", "answer.json"


def run(params: Params) -> dict[str, Any]:
    """The answer as the server would give it, or of a table the counts "rows" and "rows_failed".

    Raises InputError for a question that cannot be answered.
    """
    from cinetune.serving import prediction
    from cinetune.task.description import Task

    asked = params.predict
    if asked.table:
        return _answer_table(params)
    prediction.check(asked)
    choices = prediction.read_choices(asked.choices, Task())

    from cinetune.report import contact_sheet

    name = pipeline.run_name("predict", asked.question)
    with lifecycle.start("predict", {"question": asked.question}, name=name) as tracked:
        tracked.log_params(params.sections("predict"))
        seen: list[Any] = []
        with closing(prediction.open_service(params, queries.load_model)) as service:
            service.observe = seen.append
            clip, answer = prediction.answer(asked, service)
        target = pipeline.RUNS / tracked.id / "predict"
        with whole_folder(target) as folder:
            contact_sheet.save(clip, folder / SHEET)
            question = {"video": asked.video, "question": asked.question, "choices": choices, "times_s": clip.times}
            write_json(folder / ANSWER, question | answer)
        tracked.log_artifacts(target, "predict")
        pipeline.write_traces(tracked, params, seen)
        tracked.set_tags({"answer": answer["answer"]})
        tracked.describe(f"> {asked.question}\n\n{answer['answer']}")
        logger.info("predict: the frames that were looked at: %s", target / SHEET)
        print(json.dumps(answer, ensure_ascii=False))
        if answer["error"]:
            raise InputError(answer["error"])
        return answer


def _answer_table(params: Params) -> dict[str, Any]:
    from cinetune.artifacts import Adapter
    from cinetune.serving import prediction
    from cinetune.serving import table as tables

    asked = params.predict
    out = tables.check_out(asked)
    with lifecycle.start("predict", name=pipeline.run_name("predict", asked.table)) as tracked:
        tracked.log_params(params.sections("predict"))
        model = Adapter.open(asked.model).digest if Path(asked.model).is_dir() else registry.pinned(asked.model)
        decided = f"{model} {params.sections('evaluate', 'serve')} {provenance.source_digest()}"
        work = pipeline.CHECKPOINTS / f"predict-{text_digest(decided)[:16]}"
        with closing(prediction.open_service(params, queries.load_model)) as service:
            table = tables.Table(asked.table, asked.videos, service.task)
            tables.fill(table, out, service, work, partial(lifecycle.take_over, tracked), partial(progress, "predict"))
        tracked.log_metrics(table.counts)
        tracked.describe(table.told)
        print(f"predict: {table.told} in {out}.")
        return table.counts


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "predict", __doc__).params)
    return 0
