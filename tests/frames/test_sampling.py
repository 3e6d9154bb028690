"""Which moments are looked at, and how a picture becomes input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from cinetune.errors import InputError
from cinetune.frames.sampling import FrameSettings, choose_times, fit, identity
from cinetune.params import load

pytestmark = pytest.mark.data


def settings(policy: str = "shots", num_frames: int = 8, **other: float) -> FrameSettings:
    values = {"size": 64, "cut_threshold": 30.0, "min_shot_frames": 8} | other
    return FrameSettings(policy=policy, num_frames=num_frames, **values)


def test_settings_come_from_the_frames_section_of_the_params() -> None:
    params = load().frames
    assert FrameSettings.of(params).to_dict().items() <= vars(params).items()


def test_uniform_times_are_the_centres_of_equal_parts() -> None:
    assert choose_times(8.0, [1.0, 5.0], settings("uniform", 4)) == [1.0, 3.0, 5.0, 7.0]


def test_shots_without_cuts_are_exactly_uniform() -> None:
    for duration_s in (0.04, 7.3, 160.0):
        assert choose_times(duration_s, [], settings("shots")) == choose_times(duration_s, [], settings("uniform"))


def test_every_shot_is_seen_when_there_are_fewer_shots_than_frames() -> None:
    times = choose_times(100.0, [1.0, 2.0, 50.0], settings("shots", 8))
    shots = np.searchsorted([1.0, 2.0, 50.0], times)
    assert np.bincount(shots).tolist() == [1, 1, 3, 3]
    assert times[0] == 0.5 and times[1] == 1.5


def test_the_middle_of_evenly_chosen_shots_is_taken_when_there_are_more_shots_than_frames() -> None:
    assert choose_times(8.0, list(range(1, 8)), settings("shots", 8)) == [i + 0.5 for i in range(8)]
    assert choose_times(8.0, list(range(1, 8)), settings("shots", 2)) == [2.5, 6.5]


def test_equal_shots_share_a_rest_from_the_first_on() -> None:
    cuts = [10 / 3, 20 / 3]
    counts = np.bincount(np.searchsorted(cuts, choose_times(10.0, cuts, settings("shots", 8))))
    assert counts.tolist() == [3, 3, 2]


@pytest.mark.parametrize("num_frames", [1, 2, 7, 8, 32])
def test_there_are_always_as_many_ascending_times_within_the_clip_as_asked_for(num_frames: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        duration_s = float(rng.uniform(0.01, 500))
        cuts = rng.uniform(-1, duration_s + 1, rng.integers(0, 40)).tolist()
        times = choose_times(duration_s, cuts, settings("shots", num_frames))
        assert len(times) == num_frames
        assert (np.diff(times) > 0).all()
        assert times[0] > 0 and times[-1] < duration_s


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_duration_that_is_none_is_refused(duration_s: float) -> None:
    with pytest.raises(InputError, match="duration"):
        choose_times(duration_s, [], settings())


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="shots, uniform"):
        choose_times(1.0, [], settings("random"))


def test_the_identity_changes_with_every_setting_and_only_then() -> None:
    different = [
        settings(), settings("uniform"), settings(num_frames=4), settings(size=224),
        settings(cut_threshold=27.0), settings(min_shot_frames=9),
    ]  # fmt: skip
    assert identity(settings()) == identity(settings())
    assert len({identity(each) for each in different}) == len(different)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 5), (64, 64), (120, 160), (161, 119), (2, 10000), (10000, 2)])
def test_pictures_of_any_shape_become_squares(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), (10, 120, 250), dtype=np.uint8)
    fitted = fit(image, 64)
    assert fitted.shape == (64, 64, 3) and fitted.dtype == np.uint8
    assert (fitted == image[0, 0]).all()


def test_the_centre_is_kept() -> None:
    image = np.zeros((64, 192, 3), dtype=np.uint8)
    image[:, 64:128] = 255
    assert (fit(image, 64)[:, 4:-4] == 255).all()


@pytest.mark.parametrize(("shape", "aspect"), [((96, 64), 1.5), ((48, 96), 2.0), ((3, 40), 16.0), ((96, 20), 0.1)])
def test_pictures_of_wide_and_narrow_pixels_become_squares(shape: tuple[int, int], aspect: float) -> None:
    assert fit(np.full((*shape, 3), 7, dtype=np.uint8), 64, aspect).shape == (64, 64, 3)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(120, 160), (360, 640), (161, 119), (50, 31), (7, 50)])
def test_pixels_agree_with_the_image_processor_of_transformers(shape: tuple[int, int]) -> None:
    processors = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = processors.CLIPImageProcessorPil(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        do_normalize=False,
        do_rescale=False,
    )
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    theirs = np.asarray(processor(image, input_data_format="channels_last")["pixel_values"][0]).transpose(1, 2, 0)
    assert (fit(image, 64) == theirs).all()


def test_choosing_times_loads_neither_a_video_library_nor_torch() -> None:
    unwanted = "('torch', 'av', 'mlflow', 'dvc')"
    code = f"import sys, cinetune.frames.sampling; print([name for name in {unwanted} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
