"""What was lost: clips and questions by split, status and film."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from cinetune.data.intake import ClipRequest, Intake
from cinetune.data.manifest import ClipRecord
from cinetune.data.sources.rows import SPLITS
from cinetune.task.groups import group_key


def report(intake: Intake, chosen: Iterable[ClipRequest], records: dict[str, ClipRecord]) -> dict[str, Any]:
    """Attrition by split and film, and what the splits share. Without addresses: they may hold secrets."""
    wanted = {clip.clip_id for clip in chosen}
    splits, films = {}, {}
    for split in SPLITS:
        clips = [clip for clip in intake.clips[split].values() if clip.clip_id in wanted]
        status = {clip.clip_id: records[clip.clip_id].status for clip in clips if clip.clip_id in records}
        asked, lost = intake.questions[split], Counter(status.get(clip.clip_id, "waiting") for clip in clips)
        splits[split] = {
            "clips": len(clips),
            "clips_by_status": dict(sorted(lost.items())),
            "questions": sum(asked[clip.clip_id] for clip in clips),
            "questions_lost": sum(asked[clip.clip_id] for clip in clips if status.get(clip.clip_id) != "ok"),
        }
        by_film: dict[str, Counter[str]] = {}
        for clip in clips:
            kind = "ok" if status.get(clip.clip_id) == "ok" else "lost"
            by_film.setdefault(clip.film, Counter(ok=0, lost=0))[kind] += 1
        films[split] = {film: dict(count) for film, count in sorted(by_film.items())}
    tested = {group_key(film) for film in films["test"]}
    shared_films = sorted(film for film in films["train"] if group_key(film) in tested)
    shared_clips = sorted(wanted & set(intake.clips["train"]) & set(intake.clips["test"]))
    return {
        "rows": intake.num_rows,
        "rows_rejected": len(intake.rejected),
        "splits": splits,
        "overlap": {"films": shared_films, "clips": shared_clips},
        "films": films,
    }
