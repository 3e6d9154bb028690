"""Ask the registered model, or an adapter folder, one question about one video.

Takes --video (a video file, or clip:<clip_id> of the data), --question, --choices "a|b|c|d|e" for multiple choice,
--subtitles (an .srt, .vtt or .txt file, or the words; left out, the video's own track is read) and, of a long video,
--start and --end in seconds. Makes outputs/runs/<run id>/predict/ with the answer and a sheet of the frames that the
model was shown, logs both, and prints one line of JSON: answer, choice, confidence, raw, error. Run it with
`mlflow run . -e predict -P video=film.mp4 -P question="Who leaves first?"`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune import stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params, PredictParams

if TYPE_CHECKING:
    from cinetune.frames import ClipFrames
    from cinetune.service import Service

CLIP = "clip:"
SHEET, ANSWER = "frames.png", "answer.json"


def run(params: Params) -> dict[str, Any]:
    """The answer as the server would give it; raises InputError for a question that cannot be answered."""
    asked = params.predict
    check(asked)
    choices = _read_choices(asked.choices)
    name = stages.run_name("predict", asked.question)
    with tracking.start("predict", {"question": asked.question}, name=name) as tracked:
        tracked.log_params(stages.sections(params, "predict"))
        service = _adapter_service(Path(asked.model), params) if Path(asked.model).is_dir() else _service(asked.model)
        try:
            clip = _read_frames(asked, service)
            answer = _ask(asked, choices, clip, service)
        finally:
            service.close()
        target = stages.RUNS / tracked.id / "predict"
        _write(asked, choices, clip, answer, target)
        tracked.log_artifacts(target, "predict")
        tracked.set_tags({"answer": answer["answer"]})
        tracked.describe(f"> {asked.question}\n\n{answer['answer']}")
        print(f"predict: the frames that were looked at: {target / SHEET}", file=sys.stderr)
        print(json.dumps(answer, ensure_ascii=False))
        if answer["error"]:
            raise InputError(answer["error"])
        return answer


def check(asked: PredictParams) -> None:
    """Raises InputError for what is wrong before anything is loaded."""
    if not asked.video:
        raise InputError("predict.video is empty: name a video file, or a clip of the data as clip:<clip_id>.")
    if not asked.video.startswith(CLIP) and not Path(asked.video).is_file():
        raise InputError(
            f"video {asked.video!r} does not exist: name a video file, or a clip of the data as clip:<clip_id>."
        )
    if not asked.question.strip():
        raise InputError('predict.question is empty: ask something, as in -P question="Who leaves first?".')
    if asked.end and asked.end <= asked.start:
        raise InputError(f"predict.end is {asked.end:g} s, not after predict.start ({asked.start:g} s): set it later.")
    subtitles = Path(asked.subtitles)
    if asked.subtitles.lower().endswith((".srt", ".vtt", ".txt")) and not subtitles.is_file():
        raise InputError(f"subtitles {asked.subtitles!r} do not exist: name a file, or give the words themselves.")


def _read_choices(choices: str) -> list[str] | None:
    from cinetune.questions import check_choices

    if not choices.strip():
        return None
    options = [choice.strip() for choice in choices.split("|")]
    reason = check_choices(options)
    if reason:
        raise InputError(f"{reason}; separate five options by |, or give none for an open question.")
    return options


def _service(uri: str) -> Service:
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    return tracking.load_model(uri).unwrap_python_model().service


def _adapter_service(folder: Path, params: Params) -> Service:
    """The served model's own service, with what the adapter was trained with."""
    stages.refuse_other_prompt(folder)
    params = stages.as_trained(params, folder)

    from cinetune import model
    from cinetune.service import Service

    base, tokenizer = model.load_base(params.model, model.default_device())
    model.check_frame_size(base.config, params.frames.size)
    return Service(
        model.load_adapter(base, folder),
        model.encoder_of(params, base.config, tokenizer),
        params.frames,
        Path(params.data.root) / "clips",
        params.serve,
        params.evaluate.questions_per_pack,
        params.evaluate.max_new_tokens,
    )


def _read_frames(asked: PredictParams, service: Service) -> ClipFrames:
    """Of the whole clip, or of the part that is asked about."""
    from cinetune import sources, video
    from cinetune.frames import FrameSettings

    is_clip = asked.video.startswith(CLIP)
    source = sources.read_clip(service.clips_folder, asked.video.removeprefix(CLIP)) if is_clip else Path(asked.video)
    part = (asked.start, asked.end) if asked.start or asked.end else None
    with video.Decoder(video.Limits.of(service.frames)) as decoder:
        return decoder.read(source, FrameSettings.of(service.frames), asked.video, part)


def _ask(asked: PredictParams, choices: list[str] | None, clip: ClipFrames, service: Service) -> dict[str, Any]:
    from cinetune.scoring import Asked

    words = _read_subtitles(asked, service)
    return service.ask(clip, words, Asked(asked.question, None if choices is None else tuple(choices)))


def _read_subtitles(asked: PredictParams, service: Service) -> str:
    from cinetune import subtitles

    end = asked.end or float("inf")
    if asked.subtitles.lower().endswith(subtitles.SUFFIXES):
        return subtitles.read_file(Path(asked.subtitles), asked.start, end)
    if asked.subtitles or asked.video.startswith(CLIP):
        return asked.subtitles
    return subtitles.embedded(Path(asked.video), asked.start, end, service.frames.timeout_s)


def _write(
    asked: PredictParams, choices: list[str] | None, clip: ClipFrames, answer: dict[str, Any], target: Path
) -> None:
    from cinetune import contact_sheet

    with stages.whole_folder(target) as folder:
        contact_sheet.save(clip, folder / SHEET)
        question = {"video": asked.video, "question": asked.question, "choices": choices, "times_s": clip.times}
        stages.write_json(folder / ANSWER, question | answer)


def main(argv: Sequence[str]) -> int:
    run(stages.parse(argv, "predict", __doc__).params)
    return 0
