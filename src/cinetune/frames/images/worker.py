"""The process that decodes images: their bytes in, frames out, within limits on memory and processor time."""

from __future__ import annotations

import io
import sys
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from cinetune import sandbox
from cinetune.frames.limits import Limits, Refusal, check_size
from cinetune.frames.sampling import FrameSettings, fit
from cinetune.sandbox import read_message, write_message

FORMATS = ("JPEG", "PNG", "WEBP")
REMEDY = "send JPEG, PNG or WebP"
# What else is sent as an image, by how it begins.
OTHERS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a bitmap"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"%PDF", "a PDF"),
    (b"\0\0\1\0", "an icon"),
)
MARKUP_BYTES = 1024


def decode(content: bytes, size: int, limits: Limits) -> np.ndarray:
    """uint8 RGB [size, size, 3], turned as its EXIF data say; what is transparent is shown on white.

    Raises Refusal for what is no still image, or too large.
    """
    _check_kind(content)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            check_size(image.width, image.height, limits)
            # A camera's JPEG may carry its preview as a second image.
            if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
                raise Refusal("not_an_image", f"is animated: {REMEDY} of one picture, or a video")
            image.load()
            return fit(np.asarray(_as_rgb(ImageOps.exif_transpose(image))), size)
    # Pillow tells of damage by each of these.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, OverflowError) as error:
        if isinstance(error, Image.UnidentifiedImageError):
            raise Refusal("not_an_image", f"is no image: {REMEDY}") from None
        raise Refusal("broken", "is damaged: send it again") from None


def _check_kind(content: bytes) -> None:
    if not content:
        raise Refusal("not_an_image", "is empty")
    kind = next((name for start, name in OTHERS if content.startswith(start)), None)
    start = content[:MARKUP_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml", b"<!doctype", b"<html")):
        kind = "an SVG" if b"<svg" in content.lower() else "a page"
    if kind:
        raise Refusal("not_an_image", f"is {kind}: {REMEDY}")


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # Of sixteen bits the upper ones.
        levels = np.asarray(image).astype(np.float64)
        image = Image.fromarray((np.clip(levels, 0, 65535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def serve(limits: Limits, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until the parent closes the pipe."""
    write_message(replies, {"ready": True})
    while (request := read_message(requests)) is not None:
        contents = [requests.read(num_bytes) for num_bytes in request["sizes"]]
        sandbox.limit_processor_time(limits.timeout_s)
        try:
            frames = _frames(request, contents, limits)
        except Refusal as refusal:
            write_message(replies, {"status": refusal.status, "reason": str(refusal)})
        except MemoryError:
            reason = f"needs more than {limits.memory_mb} MB: scale its images down or raise frames.memory_mb"
            write_message(replies, {"status": "out_of_memory", "reason": reason})
            return
        else:
            header = {"times": request["times"], "cuts": [], "duration_s": request["duration_s"], "note": ""}
            write_message(replies, header, frames.tobytes())


def _frames(request: dict[str, Any], contents: list[bytes], limits: Limits) -> np.ndarray:
    settings = FrameSettings(**request["settings"])
    fitted = []
    for name, content in zip(request["names"], contents, strict=True):
        try:
            fitted.append(decode(content, settings.size, limits))
        except Refusal as refusal:
            raise Refusal(refusal.status, f"has an image {name} that {refusal}") from None
    return np.stack([fitted[place] for place in request["order"]])


def main(argv: list[str]) -> None:
    settings, requests, replies = sandbox.enter(argv)
    limits = Limits(**settings)
    # Ours holds, and says what to do.
    Image.MAX_IMAGE_PIXELS = None
    Image.init()
    sandbox.limit(max_file_bytes=0, max_memory_bytes=limits.memory_mb << 20)
    serve(limits, requests, replies)


if __name__ == "__main__":
    main(sys.argv[1:])
