"""Questions as MLflow traces: what the model saw and said, step by step.

A trace's root span holds the chat (frames as attachments, which the UI shows) and, as an attribute, the question's row.
"""

from __future__ import annotations

import io
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from cinetune.errors import InputError
from cinetune.runtime.observation import Observation
from cinetune.task.data_card import MINI
from cinetune.task.description import LETTERS
from cinetune.tracking.store import experiment_id, file_of_store, open_store, reaching

logger = logging.getLogger(__name__)

MAX_WAITING = 64
ROW = "row"


def shows_content(content: str, data: str) -> bool:
    """Whether frames and subtitles come into traces, by `trace.content` and the name of the data.

    "auto": where they stay on this machine, or are the project's own.
    """
    if content != "auto":
        return content == "always"
    client = open_store()
    with reaching():
        place = client.get_experiment(experiment_id(client)).artifact_location
    stays = file_of_store() is not None and urlsplit(place).scheme in ("", "file")
    return stays or data == MINI


@contextmanager
def told(what: str) -> Iterator[None]:
    """For those whose result must not be lost to what only shows it: what cannot be written is told."""
    try:
        yield
    except InputError as error:
        logger.warning("%s could not be written: %s", what, error)


def write(seen: Observation, tags: Mapping[str, str], has_content: bool, run_id: str = "") -> str:
    """One question as a trace; its id. With a run's id the trace is listed with that run.

    tags: the version and hashes that decided the answer; has_content: whether frames and subtitles come along.
    """
    import mlflow
    from mlflow.entities import SpanType
    from mlflow.tracing.constant import TraceMetadataKey

    client = open_store()
    # Without steps it is an instant, so that MLflow shows no time that nothing took.
    times = [at for span in seen.spans for at in (span.start_ns, span.end_ns)] or [time.time_ns()]
    with reaching("a trace cannot be written"):
        root = mlflow.start_span_no_context(
            "question",
            SpanType.CHAIN,
            inputs={"messages": [{"role": "user", "content": _content(seen, has_content)}]},
            attributes={ROW: _row(seen, has_content), "probabilities": _shares(seen), **dict(seen.answer)},
            tags=dict(tags),
            metadata={TraceMetadataKey.SOURCE_RUN: run_id} if run_id else None,
            experiment_id=experiment_id(client),
            start_time_ns=min(times),
        )
        for span in seen.spans:
            step = mlflow.start_span_no_context(span.name, parent_span=root, start_time_ns=span.start_ns)
            step.end(end_time_ns=span.end_ns)
        said = seen.answer.get("error") or seen.answer["raw"] or seen.answer["answer"]
        root.set_outputs({"choices": [{"index": 0, "message": {"role": "assistant", "content": said}}]})
        root.end(end_time_ns=max(times))
        mlflow.flush_trace_async_logging()
    return str(root.trace_id)


def _content(seen: Observation, has_content: bool) -> list[dict[str, Any]]:
    from mlflow.tracing.attachments import Attachment

    words = [seen.question, *(f"{letter}) {text}" for letter, text in zip(LETTERS, seen.choices or (), strict=False))]
    asked = {"type": "text", "text": "\n".join(words)}
    if not has_content:
        return [asked]
    frames = []
    for frame in seen.frames:
        picture = io.BytesIO()
        Image.fromarray(frame).save(picture, "PNG")
        attached = Attachment(content_type="image/png", content_bytes=picture.getvalue())
        frames.append({"type": "image_url", "image_url": {"url": attached}})
    return [{"type": "text", "text": seen.subtitles or "(no subtitles)"}, *frames, asked]


def _row(seen: Observation, has_content: bool) -> dict[str, Any]:
    """The question as a row of CinePile has it, but for the answer; subtitles are None where they are left out."""
    row = {"question": seen.question, "choices": list(seen.choices or ()), **seen.about}
    return row | {"subtitles": seen.subtitles if has_content else None}


def _shares(seen: Observation) -> dict[str, float]:
    return dict(zip(LETTERS, seen.probabilities or (), strict=False))


class Writer:
    """Writes traces in a thread of its own, for those who must not wait; what it cannot keep up with is left out."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._tags = dict(tags)
        self._queue: queue.Queue[Observation] = queue.Queue(MAX_WAITING)
        self.counts: Counter[str] = Counter()
        threading.Thread(target=self._run, name="traces", daemon=True).start()

    def observe(self, seen: Observation) -> None:
        try:
            self._queue.put_nowait(seen)
        except queue.Full:
            self.counts["left out"] += 1

    def wait(self) -> None:
        """Until what was observed is written or given up."""
        self._queue.join()

    def _run(self) -> None:
        while True:
            seen = self._queue.get()
            try:
                # Whoever asks for a share of a server's questions asks for what they show.
                write(seen, self._tags, has_content=True)
                self.counts["written"] += 1
            except InputError as error:
                self.counts["failed"] += 1
                logger.warning("a trace was not written: %s", error)
            finally:
                self._queue.task_done()
