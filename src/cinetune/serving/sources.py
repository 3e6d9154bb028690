"""Where the video or the images of a request may come from: base64, a clip that is served here, an allowed host.

Nothing else is opened, whatever a request names.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cinetune.errors import InputError
from cinetune.model.lookup import candidate_folders
from cinetune.serving import remote
from cinetune.task import clip_ids

MAX_VIDEO_BYTES = 50 << 20
# What base64 may hold beside its own letters: line breaks.
MAX_SPACE_CHARS = 1 << 20
SPACE = b" \t\r\n\v\f"
TOO_LARGE = f"video is above the limit of {MAX_VIDEO_BYTES >> 20} MB: scale it down or cut it"
UNREADABLE = "video must be the base64 of a video file, or clip:<clip_id>: paths and addresses are not opened"
CLIP = "clip:"
LINK = re.compile(r"https?://", re.IGNORECASE)
# What browsers put before the base64 of a file.
DATA_URL = re.compile(r"data:[\w.+-]{1,64}/[\w.+-]{1,64}(?:;[\w.+-]{1,64}=[\w.+-]{1,64}){0,4};base64,", re.IGNORECASE)


def read(source: str | bytes, clips: Path, url_hosts: Sequence[str], timeout_s: float) -> bytes:
    """The bytes of a request's video. Raises InputError for what may not or cannot be read."""
    if isinstance(source, bytes):
        return _within_limit(source)
    if source.startswith(CLIP):
        return read_clip(clips, source.removeprefix(CLIP))
    if LINK.match(source) and url_hosts:
        return remote.fetch(source, url_hosts, MAX_VIDEO_BYTES, timeout_s)
    return read_upload(source)


def read_images(texts: Sequence[str], url_hosts: Sequence[str], timeout_s: float) -> list[bytes]:
    """The bytes of a request's images, in base64 or on an allowed host. Raises InputError naming the image."""
    contents: list[bytes] = []
    for number, text in enumerate(texts, 1):
        left = MAX_VIDEO_BYTES - sum(map(len, contents))
        try:
            is_fetched = LINK.match(text) and url_hosts
            fetched = remote.fetch(text, url_hosts, MAX_VIDEO_BYTES, timeout_s) if is_fetched else _decode(text)
            contents.append(fetched)
        except InputError as error:
            raise InputError(f"image {number}: {error}") from None
        except ValueError:
            raise InputError(f"image {number} must be the base64 of a JPEG, PNG or WebP file") from None
        if len(contents[-1]) > left:
            raise InputError(f"the images are together above the limit of {MAX_VIDEO_BYTES >> 20} MB: scale them down")
    return contents


def read_upload(text: str) -> bytes:
    """The bytes of a video in base64. Raises InputError for anything else; nothing is ever opened by name."""
    if len(text) > MAX_VIDEO_BYTES * 4 // 3 + MAX_SPACE_CHARS:
        raise InputError(TOO_LARGE)
    try:
        return _within_limit(_decode(text))
    except binascii.Error:
        raise InputError(UNREADABLE) from None


def _decode(text: str) -> bytes:
    # An error of its encoding would hold the text.
    if not text.isascii():
        raise binascii.Error
    return base64.b64decode(_letters(text), validate=True)


def _letters(text: str) -> bytes:
    """Base64 without line breaks, and without what stands before it in a data: URL."""
    prefix = DATA_URL.match(text)
    return text[prefix.end() if prefix else 0 :].encode("ascii").translate(None, SPACE)


def _within_limit(content: bytes) -> bytes:
    if len(content) > MAX_VIDEO_BYTES:
        raise InputError(TOO_LARGE)
    return content


def read_clip(folder: Path, clip_id: str) -> bytes:
    """The file of a clip in the served folder. Raises InputError for other names and links that lead out."""
    try:
        path = _path_of(folder, f"{clip_id}.mp4", clip_id)
        # What was checked must be what is opened, and opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError
            content = file.read(MAX_VIDEO_BYTES + 1)
    except (OSError, RuntimeError):
        raise _unserved(clip_id) from None
    if len(content) > MAX_VIDEO_BYTES:
        raise InputError(f"clip {clip_id!r} is above the limit of {MAX_VIDEO_BYTES >> 20} MB")
    return content


def find_images(folder: Path, clip_id: str) -> Path:
    """The folder of a clip's images in the served folder. Raises InputError as `read_clip` does."""
    try:
        path = _path_of(folder, clip_id, clip_id)
        if not path.is_dir() or not all(image.resolve().is_relative_to(path) for image in path.iterdir()):
            raise FileNotFoundError
    except (OSError, RuntimeError):
        raise _unserved(clip_id) from None
    return path


def _path_of(folder: Path, name: str, clip_id: str) -> Path:
    """A clip's own place in a folder. Python 3.11 tells of a loop of links by RuntimeError."""
    reason = clip_ids.check(clip_id)
    if reason:
        raise InputError(f"video names no clip: {reason}")
    root = folder.resolve(strict=True)
    path = (root / name).resolve(strict=True)
    if not path.is_relative_to(root):
        raise FileNotFoundError
    return path


def _unserved(clip_id: str) -> InputError:
    return InputError(f"clip {clip_id!r} is not among the clips that are served here")


def find_clips(config: Mapping[str, Any]) -> Path:
    """CINETUNE_CLIPS, or what the version names, looked for like its base."""
    override = os.environ.get("CINETUNE_CLIPS")
    places = [Path(override)] if override else candidate_folders(config["clips"], config["root"])
    return next((place for place in places if place.is_dir()), places[0])
