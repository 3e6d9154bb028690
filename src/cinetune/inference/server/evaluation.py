"""A split evaluated by a server's replies, with a journal by which a run that ended early is resumed."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from cinetune import provenance
from cinetune.errors import InputError
from cinetune.files import text_digest
from cinetune.frames.store import FrameStore
from cinetune.inference.journal import Journal
from cinetune.inference.server import requests, results
from cinetune.inference.server.endpoint import Endpoint, read_body, read_prices
from cinetune.inference.server.judging import Judging
from cinetune.inference.server.reply import ServerReply
from cinetune.inference.server.requests import Job, Shown
from cinetune.params import Params
from cinetune.runtime import distributed
from cinetune.task.description import Task
from cinetune.task.questions import ClipQuestions

logger = logging.getLogger(__name__)

# Of evaluate.allow: questions without a reply count as missing.
UNANSWERED = "unanswered"
SETTINGS = ("server_sends", "server_body", "max_new_tokens")


def check(params: Params, ablations: Sequence[str]) -> None:
    """Raises InputError for settings that cannot be asked with, before anything is opened."""
    read_body(params.evaluate.server_body)
    read_prices(params.evaluate.server_prices)
    requests.check_views(params.evaluate.server_sends, ablations)
    if distributed.count() > 1:
        raise InputError("a server is asked by one process: leave torchrun out, and raise evaluate.server_requests.")


def made_from(endpoint: Endpoint, params: Params) -> dict[str, Any]:
    """What decides a server's replies beside the questions and what is shown, as far as it is known here."""
    settings = {name: getattr(params.evaluate, name) for name in SETTINGS}
    layout = provenance.source_digest("task/messages.py", "inference/server/requests.py")
    return {"url": endpoint.url, "model": endpoint.model, **settings, "layout_hash": layout}


def predict(
    endpoint: Endpoint,
    params: Params,
    task: Task,
    clips: Sequence[ClipQuestions],
    ablations: Sequence[str],
    made: Mapping[str, Any],
    frames: Callable[[], FrameStore],
    checkpoints: Path,
    begin: Callable[[Journal], None],
    stack: ExitStack,
    progress: Callable[[int], tqdm[Any]],
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, Any]]]:
    """Predictions by ablation and, for metrics.json, what the server's replies are; see `evaluator.predict`.

    Raises InputError where questions stay without a reply, unless `evaluate.allow` says that they may; what was
    answered is in the journal, and the next run asks for the rest.
    """
    chosen = params.evaluate
    shown, missing = _shown(params, clips, frames)
    asked = [clip for clip in clips if clip.clip_id not in missing]
    journal = stack.enter_context(Journal(checkpoints / f"evaluate-{_digest_of(made, ablations)}"))
    begin(journal)
    replies = {(line["question_id"], line["ablation"]): ServerReply(**line["reply"]) for line in journal.lines()}
    if replies:
        logger.info("%d questions have their replies already; the others are asked.", len(replies))
    left = Counter(clip.clip_id for clip in asked for question in clip.questions for name in ablations)
    with progress(len(asked)) as bar:

        def finish(clip_id: str) -> None:
            left[clip_id] -= 1
            if not left[clip_id]:
                bar.update()

        def save(job: Job, reply: ServerReply) -> None:
            line = {"question_id": job.question_id, "ablation": job.ablation, "reply": reply.to_dict()}
            journal.write(line)
            replies[job.key] = reply
            finish(job.clip_id)

        for question_id, _ in replies:
            finish(question_id.rpartition("-")[0])
        body = requests.body_of(endpoint.model, chosen, read_body(chosen.server_body))
        judging = Judging(endpoint, chosen, save, bool(replies))
        judging.run(requests.jobs_of(asked, task, ablations, set(replies), shown, body))
    if judging.lost:
        _tell_lost(judging.lost, sum(left.values()), UNANSWERED in chosen.allow.split())
    stack.push(journal.remove_on_success)
    prices = read_prices(chosen.server_prices)
    tables = {name: results.table_of(clips, task, replies, missing, judging.lost, name) for name in ablations}
    return tables, {name: {"server": results.account(replies, name, prices)} for name in ablations}


def _shown(
    params: Params, clips: Sequence[ClipQuestions], frames: Callable[[], FrameStore]
) -> tuple[Shown, dict[str, str]]:
    """How clips are shown, and why some are not."""
    if params.evaluate.server_sends == requests.VIDEO:
        folder = Path(params.data.root) / "clips"
        gone = {
            clip.clip_id: "its video is not there" for clip in clips if not (folder / f"{clip.clip_id}.mp4").is_file()
        }
        return requests.of_videos(folder), gone
    store = frames()
    store.with_frames(clips)
    return requests.of_frames(store), {
        clip.clip_id: store.failures.get(clip.clip_id, "its frames were never made")
        for clip in clips
        if clip.clip_id not in store
    }


def _digest_of(made: Mapping[str, Any], ablations: Sequence[str]) -> str:
    """16 hexadecimal digits; replies that were paid for outlive a change of code that asks the same."""
    asked = {name: value for name, value in made.items() if name != "parsers_hash"}
    return text_digest(json.dumps([asked, list(ablations)], sort_keys=True))[:16]


def _tell_lost(lost: Mapping[tuple[str, str], str], open_questions: int, is_allowed: bool) -> None:
    reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(lost.values()).most_common())
    told = f"{open_questions} questions have no reply ({reasons})"
    if not is_allowed:
        raise InputError(
            f"{told}: run it again, and these alone are asked, or count them as missing with -P allow={UNANSWERED}."
        )
    logger.warning("%s: they count as missing.", told)
