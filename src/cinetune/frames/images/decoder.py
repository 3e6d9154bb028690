"""Frames of a clip that is images already: a folder of them, or their bytes in their order."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cinetune.frames.decoder import DecodingChild
from cinetune.frames.images import listing
from cinetune.frames.limits import Limits, Refusal, VideoError
from cinetune.frames.sampling import ClipFrames, FrameSettings
from cinetune.sandbox import Child

MAX_IMAGE_BYTES = 50 << 20


class ImageDecoder(DecodingChild):
    """Of folders and lists of images; `images_per_s` tells when those without a time are shown."""

    def __init__(self, limits: Limits, images_per_s: float = 1.0) -> None:
        super().__init__(limits, "cinetune.frames.images.worker")
        self._images_per_s = images_per_s

    def read(
        self,
        source: Path | Sequence[bytes],
        settings: FrameSettings,
        name: str | None = None,
        part: tuple[float, float] | None = None,
    ) -> ClipFrames:
        """As many of the images as are looked at; all of them where there are not more, some then several times.

        part: of a folder, its start and end in s; an end of 0 is the clip's. Raises VideoError for a list that is
        empty and an image that cannot be used; its text shows `name`, or the path as it was given.
        """
        is_folder = isinstance(source, Path)
        name = name or (str(source) if is_folder else "upload")
        shown = repr(name if len(name) <= 80 else f"{name[:77]}...")
        try:
            return self._read(source, settings, part)
        except Refusal as refusal:
            kind = "image folder" if is_folder else "image list"
            raise VideoError(refusal.status, f"{kind} {shown} {refusal}.") from None

    def _read(
        self, source: Path | Sequence[bytes], settings: FrameSettings, part: tuple[float, float] | None
    ) -> ClipFrames:
        if isinstance(source, Path):
            images = listing.read(source, self._images_per_s)
            images = listing.cut(images, *part) if part else images
            times, end_s = images.times, images.end_s
        else:
            if not source:
                raise Refusal("missing", "is empty")
            times = tuple(number / self._images_per_s for number in range(len(source)))
            end_s = len(source) / self._images_per_s
        chosen = listing.choose(times, end_s, settings)
        each = list(dict.fromkeys(chosen))
        contents = [_content(images.paths[number]) if isinstance(source, Path) else source[number] for number in each]
        names = [repr(images.paths[number].name) if isinstance(source, Path) else str(number + 1) for number in each]
        header = {
            "settings": settings.to_dict(),
            "sizes": [len(content) for content in contents],
            "names": names,
            "order": [each.index(number) for number in chosen],
            "times": [times[number] for number in chosen],
            "duration_s": end_s - times[0],
        }

        def send(child: Child) -> None:
            child.send(header, b"".join(contents))

        return self.ask(send, settings)


def _content(path: Path) -> bytes:
    """Of a regular file. Raises Refusal for what is none, or too large."""
    try:
        # Without O_NONBLOCK opening a FIFO waits for a writer for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refusal("unreadable", f"has an image {path.name!r} that is not a regular file")
            content = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise Refusal("unreadable", f"has an image {path.name!r} that cannot be opened: {error.strerror}") from None
    if len(content) > MAX_IMAGE_BYTES:
        raise Refusal("too_large", f"has an image {path.name!r} above the limit of {MAX_IMAGE_BYTES >> 20} MB")
    return content
