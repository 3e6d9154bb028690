"""Predictions for a split: from a model, a server, a baseline or a file; resumable, and shared out under torchrun."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from cinetune.frames.store import FrameStore
from cinetune.inference.journal import Journal
from cinetune.inference.server import evaluation as server
from cinetune.inference.subject import Subject, digest_of, without_model
from cinetune.params import Params
from cinetune.task import groups, questions


def predict(
    subject: Subject,
    params: Params,
    ablations: Sequence[str],
    made_from: Mapping[str, Any],
    frames: Callable[[], FrameStore],
    checkpoints: Path,
    begin: Callable[[Journal], None],
    stack: ExitStack,
    progress: Callable[[int], tqdm[Any]],
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, Any]]]:
    """Predictions by ablation, none in a process that only shares the work; notes by ablation, for metrics.json.

    made_from: `subject.made_from`, by which a killed evaluation is found again below `checkpoints`; begin: called with
    its journal; stack: keeps the journal until what it holds is saved elsewhere, and then removes it; progress: a bar
    for a number of clips. Raises InputError where the data, the frames or the model cannot be used.
    """
    task, clips = subject.task(params), questions.load(params.data.root, params.evaluate.split)
    if params.evaluate.split != "train":
        groups.shared_groups([clip.group for clip in clips], params.evaluate.split, params.data.root, "train")
    table = without_model(subject, clips, params.evaluate.seed, task)
    if table is not None:
        return {ablations[0]: table}, {}
    if subject.endpoint is not None:
        return server.predict(
            subject.endpoint, params, task, clips, ablations, made_from, frames, checkpoints, begin, stack, progress
        )
    store = frames()
    seen = store.with_frames(clips)

    from cinetune.inference import replies
    from cinetune.model import planning
    from cinetune.model.base import check_frame_size, load_base
    from cinetune.model.encoder import encoder_of
    from cinetune.model.lora import load_adapter
    from cinetune.runtime import distributed

    share, device = replies.Share(distributed.rank(), distributed.count()), distributed.device()
    work = checkpoints / f"evaluate-{digest_of(made_from, ablations, params, device)}"
    journal = stack.enter_context(Journal(work, share.rank))
    begin(journal)
    with replies.together(share), progress(len(seen[share.rank :: share.of])) as bar:
        base, tokenizer = load_base(params.model, device)
        check_frame_size(base.config, params.frames.size)
        encoder = encoder_of(params, base.config, tokenizer, task)
        planning.check_positions(seen[share.rank :: share.of], encoder, params.evaluate.max_new_tokens)
        replies.reply_to_clips(
            load_adapter(base, subject.adapter.folder) if subject.adapter else base,
            encoder,
            seen,
            lambda clip_id: store.read(clip_id).frames,
            ablations,
            journal,
            share,
            questions_per_pack=params.evaluate.questions_per_pack,
            max_new_tokens=params.evaluate.max_new_tokens,
            progress=lambda done, total: bar.update(),
        )
    if share.rank:
        return {}, {}
    stack.push(journal.remove_on_success)
    missing = {
        clip.clip_id: store.failures.get(clip.clip_id, "its frames were never made")
        for clip in clips
        if clip.clip_id not in store
    }
    return replies.collect(clips, journal.read(), missing, ablations, task), {}
