"""Clips that are folders of images, asked about by their names."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from builders.refusals import sentence
from builders.videos import numbered
from cinetune import params as params_module
from cinetune.artifacts import Adapter
from cinetune.params import Params
from cinetune.serving import prediction
from cinetune.serving.server.deadline import Deadline
from cinetune.serving.service import Service

pytestmark = pytest.mark.serving

CHOICES = ["here", "there", "nowhere", "everywhere", "elsewhere"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "clips"
    (folder / "shots").mkdir(parents=True)
    for number, picture in enumerate(numbered(6)):
        Image.fromarray(picture).save(folder / "shots" / f"{number}.png")
    (folder / "words").mkdir()
    (folder / "words" / "notes.txt").write_text("no image")
    (folder / "leaves").symlink_to("/etc")
    (folder / "peeps").mkdir()
    (folder / "peeps" / "1.png").symlink_to("/etc/hostname")
    return folder


@pytest.fixture(scope="module")
def service(served_folder: tuple[Path, Params], clips: Path) -> Iterator[Service]:
    root, params = served_folder
    before = Path.cwd()
    os.chdir(root)
    try:
        service = Service.of_adapter(Adapter.open("adapter"), params)
    finally:
        os.chdir(before)
    service.frames, service.clips_folder = dataclasses.replace(service.frames, source="images"), clips
    yield service
    service.close()


def answer(service: Service, **values: Any) -> dict[str, Any]:
    row = {"question": "Where?", "choices": CHOICES} | values
    [found] = service.answer([row], service.defaults, Deadline(None))
    return found


def test_a_clip_of_images_is_shown_by_its_name(service: Service, clips: Path) -> None:
    found = answer(service, video="clip:shots")
    assert found["error"] is None and found["choice"] in "ABCDE"
    before = service.counts()["clips_decoded"]
    assert answer(service, video="clip:shots") == found and service.counts()["clips_decoded"] == before
    # Another image in the folder is another clip.
    shutil.copy(clips / "shots" / "0.png", clips / "shots" / "9.png")
    assert answer(service, video="clip:shots")["error"] is None
    assert service.counts()["clips_decoded"] == before + 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gone", "is not among the clips"), ("leaves", "is not among the clips"), ("peeps", "is not among the clips"),
        ("../clips", "names no clip"), ("words", "image folder 'clip:words' holds no image"),
    ],
)  # fmt: skip
def test_what_is_no_clip_of_images_is_refused(service: Service, name: str, told: str) -> None:
    error = answer(service, video=f"clip:{name}")["error"]
    assert told in error and "hostname" not in error


def test_one_question_is_asked_about_a_folder_or_a_part_of_it(service: Service, clips: Path) -> None:
    asked = params_module.load().override("predict", {"question": "Where?", "choices": "|".join(CHOICES)}).predict
    for video in ("clip:shots", str(clips / "shots")):
        chosen = dataclasses.replace(asked, video=video)
        prediction.check(chosen)
        whole, found = prediction.answer(chosen, service)
        assert found["error"] is None and whole.times[0] < 1
        part, found = prediction.answer(dataclasses.replace(chosen, start=2.0, end=4.0), service)
        assert found["error"] is None and all(2 <= moment < 4 for moment in part.times)
    wrong = dataclasses.replace(asked, video=str(clips / "nowhere"))
    assert "does not exist: name a video file, a folder of images" in sentence(lambda: prediction.check(wrong))
