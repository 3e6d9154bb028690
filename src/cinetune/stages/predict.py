"""Ask the registered model, or an adapter folder, one question about one video.

Takes --video (an mp4, or clip:<clip_id> of the data), --question, --choices "a|b|c|d|e" for multiple choice
and --subtitles; prints one line of JSON: answer, choice, confidence, raw, error. Run it with
`mlflow run . -e predict -P video=film.mp4 -P question="Who leaves first?"`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cinetune import params as params_module
from cinetune import stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params

CLIP = "clip:"
# Sections that an adapter carries and that decide what it is shown; the rest stays as given.
OF_ADAPTER = ("model", "prompt", "frames")


def run(params: Params) -> dict[str, Any]:
    """The answer as the server would give it; raises InputError for a question that cannot be answered."""
    asked = params.predict
    row = {
        "video": _read_video(asked.video),
        "question": asked.question,
        "choices": _read_choices(asked.choices),
        "subtitles": asked.subtitles or None,
    }
    if not asked.question.strip():
        raise InputError('predict.question is empty: ask something, as in -P question="Who leaves first?".')
    answer = (
        _ask_adapter(Path(asked.model), params, row) if Path(asked.model).is_dir() else _ask_model(asked.model, row)
    )
    print(json.dumps(answer, ensure_ascii=False))
    if answer["error"]:
        raise InputError(answer["error"])
    return answer


def _read_video(video: str) -> str:
    if video.startswith(CLIP):
        return video
    if not video:
        raise InputError("predict.video is empty: name an mp4, or a clip of the data as clip:<clip_id>.")
    path = Path(video)
    if not path.is_file():
        raise InputError(f"video {video!r} does not exist: name an mp4, or a clip of the data as clip:<clip_id>.")
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _read_choices(choices: str) -> list[str] | None:
    from cinetune.questions import check_choices

    if not choices.strip():
        return None
    options = [choice.strip() for choice in choices.split("|")]
    reason = check_choices(options)
    if reason:
        raise InputError(f"{reason}; separate five options by |, or give none for an open question.")
    return options


def _ask_model(uri: str, row: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd

    loaded = tracking.load_model(uri)
    return loaded.predict(pd.DataFrame([row], dtype=object))[0]


def _ask_adapter(folder: Path, params: Params, row: dict[str, Any]) -> dict[str, Any]:
    """Through the served model's own service, with what the adapter was trained with."""
    stages.refuse_other_prompt(folder)
    saved = folder / stages.MADE_WITH
    if saved.is_file():
        content = params.to_dict() | {
            # An adapter may be older than a parameter.
            name: params.to_dict()[name] | values
            for name, values in json.loads(saved.read_text("utf-8")).items()
            if name in OF_ADAPTER
        }
        params = params_module.from_dict(content, str(saved))

    from cinetune import model
    from cinetune.service import Service

    base, tokenizer = model.load_base(params.model, model.default_device())
    model.check_frame_size(base.config, params.frames.size)
    prompt = params.prompt
    service = Service(
        model.load_adapter(base, folder),
        model.encoder_for(
            base.config, tokenizer, params.frames.num_frames, prompt.max_subtitle_tokens, prompt.truncate
        ),
        params.frames,
        Path(params.data.root) / "clips",
        params.evaluate.questions_per_pack,
        params.evaluate.max_new_tokens,
    )
    return service.answer([row], params.evaluate.max_new_tokens, None)[0]


def main(argv: Sequence[str]) -> int:
    run(stages.parse(argv, "predict", __doc__).params)
    return 0
