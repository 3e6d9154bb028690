"""Ask the registered model, or an adapter folder, one question about one video.

Takes --video (a video file, or clip:<clip_id> of the data), --question, --choices "a|b|c|d|e" for multiple choice,
--subtitles (an .srt, .vtt, .ass or .txt file, or the words; left out, the video's own track is read) and, of a long
video, --start and --end in seconds. Makes outputs/runs/<run id>/predict/ with the answer and a sheet of the frames that
the model was shown, logs both, and prints one line of JSON: answer, choice, confidence, raw, error. Run it with
`mlflow run . -e predict -P video=film.mp4 -P question="Who leaves first?"`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import pipeline
from cinetune.cli import parse
from cinetune.errors import InputError
from cinetune.files import whole_folder, write_json
from cinetune.params import Params
from cinetune.tracking import lifecycle, queries

if TYPE_CHECKING:
    from cinetune.serving.service import Service

logger = logging.getLogger(__name__)

SHEET, ANSWER = "frames.png", "answer.json"


def run(params: Params) -> dict[str, Any]:
    """The answer as the server would give it; raises InputError for a question that cannot be answered."""
    from cinetune.serving import prediction
    from cinetune.task.description import Task

    asked = params.predict
    prediction.check(asked)
    choices = prediction.read_choices(asked.choices, Task())

    from cinetune.report import contact_sheet

    name = pipeline.run_name("predict", asked.question)
    with lifecycle.start("predict", {"question": asked.question}, name=name) as tracked:
        tracked.log_params(params.sections("predict"))
        service = _service(params)
        try:
            clip, answer = prediction.answer(asked, service)
        finally:
            service.close()
        target = pipeline.RUNS / tracked.id / "predict"
        with whole_folder(target) as folder:
            contact_sheet.save(clip, folder / SHEET)
            question = {"video": asked.video, "question": asked.question, "choices": choices, "times_s": clip.times}
            write_json(folder / ANSWER, question | answer)
        tracked.log_artifacts(target, "predict")
        tracked.set_tags({"answer": answer["answer"]})
        tracked.describe(f"> {asked.question}\n\n{answer['answer']}")
        logger.info("predict: the frames that were looked at: %s", target / SHEET)
        print(json.dumps(answer, ensure_ascii=False))
        if answer["error"]:
            raise InputError(answer["error"])
        return answer


def _service(params: Params) -> Service:
    """That of a registered version, or of an adapter folder with the settings it was trained with."""
    from cinetune.artifacts import Adapter
    from cinetune.serving.service import Service

    if Path(params.predict.model).is_dir():
        return Service.of_adapter(Adapter.open(params.predict.model), params)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    service: Service = queries.load_model(params.predict.model).unwrap_python_model().service
    return service


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "predict", __doc__).params)
    return 0
