"""Clips that are images already: their order, the frames that they give, and images that are none."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from builders.videos import LIMITS, SHOTS, UNIFORM, numbered, numbers
from cinetune import params as params_module
from cinetune.frames import executors
from cinetune.frames.images import listing
from cinetune.frames.images.decoder import ImageDecoder
from cinetune.frames.limits import Refusal, VideoError
from cinetune.frames.store import FrameStore

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def decoder() -> Iterator[ImageDecoder]:
    with ImageDecoder(LIMITS, images_per_s=2.0) as decoder:
        yield decoder


def as_bytes(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(file, kind, **options)
    return file.getvalue()


def pictures(count: int) -> list[bytes]:
    return [as_bytes(picture) for picture in numbered(count)]


def fill(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name, picture in zip(names, numbered(len(names)), strict=True):
        Image.fromarray(picture).save(folder / name)
    return folder


def test_of_many_images_some_are_shown_and_of_few_all(decoder: ImageDecoder) -> None:
    clip = decoder.read(pictures(8), SHOTS)
    assert numbers(clip.frames) == list(range(8))
    assert clip.times == tuple(number / 2 for number in range(8)) and clip.duration_s == 4.0 and clip.cuts == ()
    assert numbers(decoder.read(pictures(16), SHOTS).frames) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert numbers(decoder.read(pictures(3), UNIFORM).frames) == [0, 0, 0, 1, 1, 2, 2, 2]
    assert numbers(decoder.read(pictures(1), SHOTS).frames) == [0] * 8


def test_numbers_in_names_order_images_without_leading_zeros(tmp_path: Path, decoder: ImageDecoder) -> None:
    folder = fill(tmp_path / "clip", [f"cam2 frame_{number}.png" for number in range(12)])
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"not one either")
    clip = decoder.read(folder, dataclasses.replace(UNIFORM, num_frames=12))
    assert numbers(clip.frames) == list(range(12)) and clip.times[-1] == 5.5


def test_a_part_of_a_folder_shows_the_images_between_two_moments(tmp_path: Path, decoder: ImageDecoder) -> None:
    numbered_ones = fill(tmp_path / "numbered", [f"{number}.png" for number in range(12)])
    clip = decoder.read(numbered_ones, UNIFORM, part=(1.0, 3.0))
    assert numbers(clip.frames) == [2, 2, 3, 3, 4, 4, 5, 5]
    assert (clip.times[0], clip.duration_s) == (1.0, 2.0)
    assert numbers(decoder.read(numbered_ones, UNIFORM, part=(5.5, 0.0)).frames) == [11] * 8
    timed_ones = fill(tmp_path / "timed", ["60s.png", "62s.png", "70s.png"])
    # The first is still shown when the part begins.
    clip = decoder.read(timed_ones, UNIFORM, part=(61.0, 63.0))
    assert numbers(clip.frames) == [0, 0, 0, 0, 1, 1, 1, 1] and (clip.times[0], clip.duration_s) == (61.0, 2.0)
    for part in ((75.0, 0.0), (80.0, 90.0), (10.0, 60.0)):
        with pytest.raises(VideoError, match=r"ends at 75.0 s: nothing lies between"):
            decoder.read(timed_ones, UNIFORM, part=part)


@pytest.mark.parametrize(
    ("names", "times"),
    [
        (["b-0.5s.png", "a-12s.png"], (0.5, 12.0)),
        (["x250ms.jpg", "x1500ms.jpg"], (0.25, 1.5)),
        (["00:00:02.500.webp", "00:01:00.webp"], (2.5, 60.0)),
        (["0.00.png", "3.20.png"], (0.0, 3.2)),
    ],
)
def test_names_tell_times(tmp_path: Path, names: list[str], times: tuple[float, ...]) -> None:
    found = listing.read(fill(tmp_path / "clip", names), images_per_s=1.0)
    assert [path.name for path in found.paths] == names and found.times == times
    assert found.end_s == 2 * times[1] - times[0]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "holds no image"),
        (["1.png", "2.5s.png"], "times in some names and none in '1.png'"),
        (["a.png", "b.png"], "no number or time in the name 'a.png'"),
        (["1.png", "01.png"], "two images of one number"),
        (["1s.png", "1.0s.png"], "two images of one moment"),
    ],
)
def test_folders_without_an_order_are_refused(tmp_path: Path, names: list[str], told: str) -> None:
    with pytest.raises(Refusal, match=told):
        listing.read(fill(tmp_path / "clip", names), images_per_s=1.0)
    with pytest.raises(Refusal, match="no folder"):
        listing.read(tmp_path / "none", images_per_s=1.0)


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(picture) for picture in numbered(3)]
    return as_bytes(frames[0], kind, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (SVG, "is an SVG"),
        (b"\xef\xbb\xbf\n<svg/>", "is an SVG"),
        (b"<!doctype html><p>consent", "is a page"),
        (animated("GIF"), "is a GIF"),
        (animated("WEBP"), "is animated"),
        (animated("PNG"), "is animated"),
        (as_bytes(numbered(1)[0], "TIFF"), "is a TIFF"),
        (as_bytes(numbered(1)[0], "BMP"), "is a bitmap"),
        (as_bytes(NOISE)[:4000], "is damaged"),
        (as_bytes(NOISE, "JPEG")[:2000], "is damaged"),
        (as_bytes(Image.new("1", (12_500, 8_000))), "12500 x 8000 pixels, above the limit of 9 megapixels"),
        (b"\0\0\0\x18ftypmp42" + bytes(100), "is no image"),
        (b"", "is empty"),
        (b"JFIF", "is no image"),
    ],
)
def test_what_is_no_still_image_costs_one_sentence(decoder: ImageDecoder, content: bytes, told: str) -> None:
    with pytest.raises(VideoError) as error:
        decoder.read([*pictures(1), content], UNIFORM)
    sentence = str(error.value)
    assert sentence.startswith("image list 'upload' has an image 2 that ") and told in sentence
    assert sentence.endswith(".") and ". " not in sentence and "\n" not in sentence
    assert numbers(decoder.read(pictures(1), UNIFORM).frames) == [0] * 8


def test_any_mode_of_an_image_becomes_what_a_viewer_shows(decoder: ImageDecoder) -> None:
    grey = np.full((64, 64), 200, np.uint8)
    deep = Image.fromarray(np.full((64, 64), 200 * 257, np.uint16))
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    turned = Image.new("RGB", (64, 64))
    turned.paste((255, 0, 0), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3
    shown = decoder.read(
        [as_bytes(grey), as_bytes(deep), as_bytes(clear), as_bytes(turned, "PNG", exif=exif)],
        dataclasses.replace(UNIFORM, num_frames=4),
    ).frames
    assert (shown[0] == 200).all() and (shown[1] == 200).all() and (shown[2] == 255).all()
    assert tuple(shown[3][60, 5]) == (255, 0, 0) and tuple(shown[3][5, 5]) == (0, 0, 0)


def test_no_image_is_a_reason(decoder: ImageDecoder) -> None:
    with pytest.raises(VideoError, match="image list 'upload' is empty"):
        decoder.read([], UNIFORM)


def test_folders_of_images_fill_the_same_store(tmp_path: Path) -> None:
    params = dataclasses.replace(
        params_module.load().frames, source="images", images_per_s=4.0, policy="uniform", num_frames=4, workers=1
    )
    clips, root = tmp_path / "clips", tmp_path / "frames"
    fill(clips / "a", [f"{number}.png" for number in range(4)])
    fill(clips / "b", [f"{number}s.jpg" for number in range(2)])
    (clips / "bad").mkdir()
    (clips / "bad" / "1.png").write_bytes(SVG)

    def bar(total: int) -> tqdm[Any]:
        return tqdm(total=total, disable=True)

    names = ["a", "b", "bad", "gone"]
    counts = executors.decode_missing(params, clips, names, root, bar)
    assert counts == {"clips": 4, "clips_new": 4, "clips_failed": 2}
    store = FrameStore.open(root)
    assert store.clip_ids == ["a", "b"]
    assert numbers(store.read("a").frames) == [0, 1, 2, 3] and store.read("a").times == (0, 0.25, 0.5, 0.75)
    assert "'1.png' that is an SVG" in store.failures["bad"] and "no folder of images" in store.failures["gone"]
    # Another image is another clip; what is unchanged is not decoded again.
    Image.fromarray(numbered(9)[8]).save(clips / "a" / "3.png")
    assert executors.decode_missing(params, clips, names, root, bar)["clips_new"] == 3
    assert numbers(FrameStore.open(root).read("a").frames) == [0, 1, 2, 8]
