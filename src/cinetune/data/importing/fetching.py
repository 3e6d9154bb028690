"""Videos of links, brought here with the pace and the limits of downloads; what was fetched before stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from cinetune.data.download import Downloader
from cinetune.data.intake import ClipRequest
from cinetune.data.links import Link
from cinetune.data.manifest import Manifest
from cinetune.frames.limits import Limits
from cinetune.params import Params


def fetch(
    links: Sequence[Link], folder: Path, params: Params, progress: Callable[[int], tqdm[None]]
) -> Mapping[str, Path | str]:
    """By address the file below `folder`, or why there is none, as the end of a sentence."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(folder)
    clips = [ClipRequest(link.clip_id, link, None, "") for link in links]
    with Downloader(folder, params.download, Limits.of(params.frames), {}) as downloader:
        needed = downloader.needed(clips, manifest, set())
        with progress(len(needed)) as bar:
            for _ in downloader.run(needed, manifest):
                bar.update()
    manifest.save()
    records = {link.url: manifest.records[link.clip_id] for link in links}
    return {
        link.url: folder / "clips" / f"{link.clip_id}.mp4"
        if records[link.url].status == "ok"
        else records[link.url].reason or records[link.url].status
        for link in links
    }
