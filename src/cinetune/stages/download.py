"""Bring the clips of a question list here, politely; what is there already is not fetched again.

Takes questions (v1 or v2 from the hub, or Parquet, CSV and JSON files separated by |); makes
<data_dir>/questions/{train,test}.parquet, <data_dir>/clips/<clip_id>.mp4 and <data_dir>/clips.parquet.
Run it with `mlflow run . -e download -P questions=<file>`, as often as clips are missing; with -P pin=true the
folder goes under DVC's control at the end. Set data.root to the folder to work on it.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cinetune import stages, tracking
from cinetune.errors import InputError
from cinetune.params import Params

if TYPE_CHECKING:
    from cinetune.download import Downloader, Manifest
    from cinetune.intake import Intake, Wanted

# Its presence says that a folder is ours to fill.
MARK = "download.json"
REJECTED_SHOWN = 5


def run(params: Params) -> None:
    name = stages.run_name(
        "download", params.download.questions, *stages.unusual(params, "download", ("questions", "cookies"))
    )
    with tracking.start("download", name=name) as tracked:
        from cinetune import download, intake, video, video2dataset

        wanted = params.download
        folder = _claim(wanted.data_dir)
        _refuse_wrong_params(params)
        tracked.log_params({"download": _without_secrets(params)})
        videos = Path(wanted.videos) if wanted.videos else None
        stored = video2dataset.find(videos) if videos else {}
        with download.only_one(folder), download.telling_full_disk(folder):
            (folder / "questions").mkdir(exist_ok=True)
            taken = intake.read(wanted.questions, wanted.revision, videos, folder / "questions")
            tracked.log_table({"rejected": taken.rejected}, "rejected.json")
            _say_rejected(taken)
            chosen = taken.first(wanted.max_clips)
            _keep(folder, taken, chosen, wanted.max_clips)
            manifest = download.Manifest(folder)
            try:
                with download.Downloader(folder, wanted, video.Limits.of(params.frames), stored) as downloader:
                    fetched = _fetch(downloader, chosen, manifest, set(wanted.again.split(",")))
            finally:
                attrition = download.report(taken, chosen, manifest.records)
                tracked.log_table(attrition, "attrition.json")
            manifest.save()
        statuses = Counter(manifest.records[clip.clip_id].status for clip in chosen)
        tracked.log_metrics({f"clips/{status}": count for status, count in statuses.items()})
        tracked.log_metrics({"clips_new": fetched, "rows_rejected": len(taken.rejected)})
        counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
        said = f"{len(chosen)} clips in {folder}: {counts}; {fetched} of them now."
        tracked.describe(said)
        print(f"download: {said}")
        overlap = attrition["overlap"]["films"]
        if overlap:
            print(f"download: {len(overlap)} films are in training and test, {overlap[0]!r} is one of them.")
        if wanted.pin == "true":
            _pin(folder)


def _refuse_wrong_params(params: Params) -> None:
    wanted = params.download
    if not wanted.questions:
        raise InputError("download.questions is empty: pass -P questions=<file>, or v1 or v2 for the hub's.")
    if wanted.cookies and not Path(wanted.cookies).is_file():
        raise InputError(f"download.cookies {wanted.cookies!r} is not a file: export one in Netscape's format.")


def _claim(data_dir: str) -> Path:
    """The folder, if it is empty or was made by this stage."""
    folder = Path(data_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"download.data_dir {data_dir!r} is not a folder: name another.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise InputError(f"download.data_dir {data_dir!r} holds what download has not put there: name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARK).is_file():
        stages.write_json(folder / MARK, {"made_by": "cinetune download"})
    return folder


def _without_secrets(params: Params) -> dict[str, object]:
    return dataclasses.asdict(params.download) | {"cookies": "given" if params.download.cookies else ""}


def _say_rejected(taken: Intake) -> None:
    for rejected in taken.rejected[:REJECTED_SHOWN]:
        print(f"download: {rejected['row']}: {rejected['reason']}")
    if taken.rejected:
        print(f"download: {len(taken.rejected)} of {taken.num_rows} rows cannot be used.")
    if len(taken.rejected) == taken.num_rows:
        raise InputError(f"none of the {taken.num_rows} rows can be used: see what is printed above.")


def _keep(folder: Path, taken: Intake, chosen: Sequence[Wanted], max_clips: int) -> None:
    """With a limit, questions about other clips would only count as missing later on."""
    from cinetune import intake

    if max_clips:
        for split in (split for split, asked in taken.questions.items() if asked):
            intake.keep_only(folder / "questions" / f"{split}.parquet", {clip.clip_id for clip in chosen})


def _fetch(downloader: Downloader, chosen: Sequence[Wanted], manifest: Manifest, again: set[str]) -> int:
    needed = downloader.needed(chosen, manifest, again)
    bar = stages.Bar("download", len(needed))
    for record in downloader.run(needed, manifest):
        bar.step(is_failure=record.status != "ok")
    bar.close()
    return len(needed)


def _pin(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "add", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = " ".join(done.stderr.strip().splitlines()[-1:])
        raise InputError(f"DVC cannot pin {str(folder)!r} ({reason}): the clips are there, `dvc add` it by hand.")
    print(f"download: {folder}.dvc pins what is in {folder}; commit it.")


def main(argv: Sequence[str]) -> int:
    run(stages.parse(argv, "download", __doc__).params)
    return 0
