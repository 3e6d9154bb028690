"""Bring the clips of a question list here, politely; what is there already is not fetched again.

Takes questions (v1 or v2 from the hub, or Parquet, CSV and JSON files separated by |); makes
<data_dir>/questions/{train,test}.parquet, <data_dir>/card.json, <data_dir>/clips/<clip_id>.mp4 and
<data_dir>/clips.parquet.
Run it with `mlflow run . -e download -P questions=<file>`, as often as clips are missing; with -P pin=true the
folder goes under DVC's control at the end. Set data.root to the folder to work on it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cinetune import pipeline, provenance
from cinetune.cli import parse, progress
from cinetune.params import Params
from cinetune.tracking import lifecycle

logger = logging.getLogger(__name__)


def run(params: Params) -> None:
    from cinetune.data import attrition, download, intake, verdicts
    from cinetune.data.manifest import Manifest
    from cinetune.data.sources import selection, stored
    from cinetune.frames.limits import Limits

    chosen = params.download
    known = ("questions", "cookies")
    name = pipeline.run_name("download", chosen.questions, *pipeline.unusual(params, "download", known))
    with lifecycle.start("download", name=name) as tracked:
        folder = download.claim(chosen)
        secrets = {"cookies": "given" if chosen.cookies else ""}
        tracked.log_params({"download": params.sections("download")["download"] | secrets})
        videos = Path(chosen.videos) if chosen.videos else None
        with download.held(folder), download.telling_full_disk(folder):
            with download.scratch(folder) as new:
                taken = intake.read(chosen.questions, chosen.revision, videos, new)
                tracked.log_table({"rejected": taken.rejected}, "rejected.json")
                for line in taken.complaints:
                    logger.warning("download: %s", line)
                taken.check()
                clips = taken.first(chosen.max_clips)
                selection.place(taken, clips, new, folder, selection.card_of(chosen), chosen.replace)
            # Links to files begin at the same folder and name theirs.
            wanted = {clip.clip_id for clip in clips if clip.root is None}
            found = stored.find(videos, wanted)
            if videos and wanted:
                print(f"download: {found.told(videos, len(wanted))}")
            manifest = Manifest(folder)
            try:
                with download.Downloader(folder, chosen, Limits.of(params.frames), found.by_clip) as downloader:
                    needed = downloader.needed(clips, manifest, set(chosen.again.split(",")))
                    for line in download.plan(needed, chosen):
                        logger.warning("download: %s", line)
                    num_failed = 0
                    with progress("download", len(needed)) as bar:
                        for record in downloader.run(needed, manifest):
                            num_failed += record.status != "ok"
                            bar.set_postfix(failed=num_failed, refresh=False)
                            bar.update()
            finally:
                lost = attrition.report(taken, clips, manifest.records)
                tracked.log_table(lost, "attrition.json")
            manifest.save()
        statuses = Counter(manifest.records[clip.clip_id].status for clip in clips)
        numbers = {"clips_new": len(needed), "rows_rejected": len(taken.rejected)}
        tracked.log_metrics({f"clips/{status}": count for status, count in statuses.items()} | numbers)
        counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
        said = f"{len(clips)} clips in {folder}: {counts}; {len(needed)} of them now."
        tracked.describe(said)
        print(f"download: {said}")
        if overlap := lost["overlap"]["films"]:
            print(f"download: {len(overlap)} films are in training and test, {overlap[0]!r} is one of them.")
        verdicts.check_outcome(clips, needed, manifest.records)
        if chosen.pin:
            provenance.dvc_add(folder)
            print(f"download: {folder}.dvc pins what is in {folder}; commit it.")


def main(argv: Sequence[str]) -> int:
    run(parse(argv, "download", __doc__).params)
    return 0
