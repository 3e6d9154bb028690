"""Exact frames out of good videos, a clear error out of bad ones, and a decoder that outlives both."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from builders.servers import serving
from builders.videos import (
    LIMITS,
    SHOTS,
    UNIFORM,
    assert_still_works,
    film,
    numbered,
    numbers,
    reason,
    restamped,
    write,
)
from cinetune.frames.decoder import Decoder
from cinetune.frames.decoding import REPEATABLE
from cinetune.frames.encoding import encode
from cinetune.frames.limits import Limits, VideoError
from cinetune.frames.sampling import FrameSettings, fit

pytestmark = pytest.mark.data


# Exact frames


@pytest.mark.parametrize("policy", [UNIFORM, SHOTS])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mp4", {"g": 48, "bf": 3}),
        (".mp4", {"g": 1}),
        (".mp4", {"g": 500}),
        (".mp4", {"g": 20, "bf": 3, "x264-params": "open-gop=1:scenecut=0"}),
        (".mov", {"g": 24}),
        (".mkv", {"g": 24, "bf": 3}),
        (".avi", {"codec": "mpeg4", "g": 24}),
        (".avi", {"g": 24, "bf": 0}),
        (".avi", {"g": 24, "bf": 3}),
        (
            ".webm",
            {"codec": "libvpx", "g": 24, "auto-alt-ref": 1, "lag-in-frames": 10, "deadline": "realtime"},
        ),
        (".webm", {"codec": "libvpx-vp9", "g": 24, "deadline": "realtime", "cpu-used": 8}),
        (".mkv", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        (".mp4", {"codec": "libsvtav1", "g": 24, "preset": 10}),
        (".mp4", {"codec": "libx265", "g": 24, "preset": "ultrafast", "x265-params": "log-level=none"}),
    ],
)
def test_the_frame_shown_at_each_time_is_returned(
    decoder: Decoder, tmp_path: Path, suffix: str, options: dict[str, Any], policy: FrameSettings
) -> None:
    path = write(tmp_path / f"clip{suffix}", numbered(96), **options)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "an encoder made this process a real-time one"
    clip = decoder.read(path, policy)
    assert numbers(clip.frames) == [int(time_s * 12 + 1e-3) for time_s in clip.times]
    assert clip.duration_s == pytest.approx(8.0, abs=0.09)
    assert clip.frames.shape == (8, 64, 64, 3) and clip.frames.dtype == np.uint8


def test_variable_frame_rate_is_followed_by_timestamp(decoder: Decoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    stamps = np.cumsum(rng.integers(10, 400, 60)).tolist()
    path = write(tmp_path / "clip.mkv", numbered(60), stamps=stamps, bf=3, g=10)
    clip = decoder.read(path, UNIFORM)
    shown = np.searchsorted(np.array(stamps) - stamps[0], np.array(clip.times) * 1000 + 0.001, side="right") - 1
    assert numbers(clip.frames) == shown.tolist()


@pytest.mark.parametrize("options", [{"bf": 0, "g": 24}, {"bf": 3, "g": 24}, {"bf": 3, "g": 500}])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_of_frames_that_share_a_timestamp_the_last_is_shown_and_all_others_stay(
    decoder: Decoder, tmp_path: Path, suffix: str, options: dict[str, Any]
) -> None:
    stamps = [i * 40 if i < 60 else 60 * 40 + (i - 60) * 120 for i in range(96)]
    source = write(tmp_path / "source.mp4", numbered(96), stamps=stamps, **options)
    repeated = {stamps[i]: stamps[i - 1] for i in (13, 14, 30, 71, 72, 95)}
    path = restamped(source, tmp_path / f"clip{suffix}", lambda stamp: repeated.get(stamp, stamp))
    shown = np.array([repeated.get(stamp, stamp) for stamp in stamps])
    for count in (8, 96):
        for settings in (UNIFORM, SHOTS):
            clip = decoder.read(path, dataclasses.replace(settings, num_frames=count))
            expected = np.searchsorted(shown, np.array(clip.times) * 1000 + 0.001, side="right") - 1
            assert numbers(clip.frames) == expected.tolist()
    assert clip.duration_s == pytest.approx(shown[-1] / 1000, abs=0.13)


def test_where_all_timestamps_are_the_same_frames_are_counted(decoder: Decoder, tmp_path: Path, good: Path) -> None:
    path = restamped(good, tmp_path / "clip.mkv", lambda stamp: 0)
    assert len(set(numbers(decoder.read(path, UNIFORM).frames))) == 8


@pytest.mark.parametrize(("bf", "gop"), [(0, 24), (0, 48), (3, 24)])
def test_a_gradual_refresh_is_not_taken_for_a_keyframe(decoder: Decoder, tmp_path: Path, bf: int, gop: int) -> None:
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (18, 60, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    noise = rng.integers(-15, 16, (12, 144, 256, 1))
    images = [
        np.clip(scene[:, i : i + 256] + noise[i % 12], 0, 255).astype(np.uint8) for i in range(192)
    ]  # fmt: skip
    options = {"preset": "veryfast", "x264-params": f"intra-refresh=1:keyint={gop}:bframes={bf}"}
    path = write(tmp_path / "clip.mp4", images, rate=24, **options)
    with av.open(str(path)) as container:
        decoded = [fit(frame.to_ndarray(format="rgb24", interpolation=REPEATABLE), 64) for frame in container.decode()]
    for count in (8, 31):
        clip = decoder.read(path, dataclasses.replace(UNIFORM, num_frames=count))
        for time_s, frame in zip(clip.times, clip.frames, strict=True):
            assert (frame == decoded[int(time_s * 24 + 1e-3)]).all()


def test_time_begins_with_the_first_frame_whatever_its_timestamp(decoder: Decoder, tmp_path: Path) -> None:
    early = write(tmp_path / "early.mkv", numbered(96), stamps=[i * 80 for i in range(96)], g=24)
    late = write(tmp_path / "late.mkv", numbered(96), stamps=[5000 + i * 80 for i in range(96)], g=24)
    first, second = decoder.read(early, UNIFORM), decoder.read(late, UNIFORM)
    assert first.times == second.times and numbers(first.frames) == numbers(second.frames)


def test_a_file_far_larger_than_what_is_read_at_once_is_read_to_its_end(decoder: Decoder, tmp_path: Path) -> None:
    path = write(tmp_path / "raw.mov", numbered(96, side=128), codec="rawvideo", pix_fmt="rgb24")
    assert path.stat().st_size > 4_000_000
    for source in (path, path.read_bytes()):
        for settings in (UNIFORM, SHOTS):
            clip = decoder.read(source, settings)
            assert clip.duration_s == pytest.approx(8.0)
            assert numbers(clip.frames) == [int(time_s * 12 + 1e-3) for time_s in clip.times]


def test_what_an_edit_list_hides_is_not_seen(decoder: Decoder, good: Path) -> None:
    content = bytearray(good.read_bytes())
    unit = content.index(b"mdhd") + 16
    one_second = struct.unpack(">I", content[unit : unit + 4])[0]
    place = content.index(b"elst") + 12
    length, first = struct.unpack(">Ii", content[place : place + 8])
    content[place : place + 8] = struct.pack(">Ii", length - 1000, first + one_second)
    clip = decoder.read(bytes(content), UNIFORM)
    assert clip.duration_s == pytest.approx(7.0)
    assert numbers(clip.frames) == [12 + int(time_s * 12 + 1e-3) for time_s in clip.times]


def test_a_clip_shorter_than_the_frames_asked_for_repeats_frames(decoder: Decoder, tmp_path: Path) -> None:
    encode(tmp_path / "three.mp4", numbered(3), 12)
    assert numbers(decoder.read(tmp_path / "three.mp4", SHOTS).frames) == [0, 0, 0, 1, 1, 2, 2, 2]
    encode(tmp_path / "one.mp4", numbered(1), 12)
    assert numbers(decoder.read(tmp_path / "one.mp4", SHOTS).frames) == [0] * 8


def test_bytes_give_the_same_frames_as_the_file(decoder: Decoder, good: Path) -> None:
    from_file, from_bytes = decoder.read(good, SHOTS), decoder.read(good.read_bytes(), SHOTS)
    assert (from_file.frames == from_bytes.frames).all()
    assert (from_file.times, from_file.cuts) == (from_bytes.times, from_bytes.cuts)


@pytest.mark.parametrize("options", [{"g": 24, "bf": 3}, {"g": 24, "bf": 0}, {"g": 500}])
def test_the_nearest_keyframes_are_taken_where_that_is_enough(
    decoder: Decoder, tmp_path: Path, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "clip.mp4", numbered(96), **options, **{"x264-params": "scenecut=0"})
    clip = decoder.read(path, dataclasses.replace(UNIFORM, seek="keyframe"))
    wanted = np.array([6 + 12 * i for i in range(8)])
    nearest = [min(range(0, 96, options["g"]), key=lambda k: abs(k - w)) for w in wanted]
    assert numbers(clip.frames) == nearest
    assert clip.times == pytest.approx([number / 12 for number in nearest])


def test_frames_close_together_and_out_of_order_in_the_file_are_exact(decoder: Decoder, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", numbered(240), g=60, bf=7, preset="slow")
    for count in (8, 31, 120, 240, 300):
        clip = decoder.read(path, dataclasses.replace(UNIFORM, num_frames=count))
        assert numbers(clip.frames) == [int(time_s * 12 + 1e-3) for time_s in clip.times]


def test_hard_cuts_a_second_apart_are_found_where_they_are(decoder: Decoder, tmp_path: Path) -> None:
    lengths = [12, 30, 12, 24, 42]
    encode(tmp_path / "film.mp4", film(lengths), 12)
    clip = decoder.read(tmp_path / "film.mp4", SHOTS)
    assert clip.cuts == pytest.approx([1.0, 3.5, 4.5, 6.5])
    assert set(np.searchsorted(clip.cuts, clip.times)) == {0, 1, 2, 3, 4}


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    encode(tmp_path / "film.mp4", film([20, 40]), 12)
    results = []
    for _ in range(2):
        with Decoder(LIMITS) as decoder:
            results.append(decoder.read(tmp_path / "film.mp4", SHOTS))
    assert (results[0].frames == results[1].frames).all()
    assert results[0].times == results[1].times and results[0].cuts == results[1].cuts


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_metadata_is_honoured(decoder: Decoder, tmp_path: Path, rotation: int) -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:32, :32] = 255
    path = write(tmp_path / "turned.mp4", [image] * 6, rotation=rotation)
    frame = decoder.read(path, UNIFORM).frames[0].astype(int)
    assert np.abs(frame - np.rot90(image, rotation // 90)).mean() < 3


@pytest.mark.parametrize("rotation", [0, 90])
def test_pixels_that_are_not_square_are_stretched_and_noted(decoder: Decoder, tmp_path: Path, rotation: int) -> None:
    image = np.zeros((96, 64, 3), dtype=np.uint8)
    image[:, 16:48] = 255
    image[:24], image[72:] = 120, 120
    path = write(tmp_path / "wide.mp4", [image] * 6, aspect=Fraction(3, 2), rotation=rotation)
    plain = write(tmp_path / "plain.mp4", [image.repeat(3, 1).repeat(2, 0)] * 6, rotation=rotation)
    clip, expected = decoder.read(path, UNIFORM), decoder.read(plain, UNIFORM)
    assert np.abs(clip.frames.astype(int) - expected.frames).mean() < 3
    assert clip.note == "pixels of 3/2, stretched" and expected.note == ""


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_noted(decoder: Decoder, tmp_path: Path, transfer: int, name: str) -> None:
    names = {16: "smpte2084", 18: "arib-std-b67"}
    options = {"x264-params": f"transfer={names[transfer]}"}
    path = write(tmp_path / "hdr.mkv", numbered(12), pix_fmt="yuv420p10le", **options)
    assert decoder.read(path, UNIFORM).note == f"HDR ({name}), not tone-mapped"


@pytest.mark.parametrize(
    ("matrix", "axes"),
    [((-1, 0, 0, 1), "mirrored"), ((1, 0, 0, -1), "upside down"), ((0, 1, 1, 0), "along the diagonal")],
)
def test_a_mirroring_display_matrix_is_honoured(
    decoder: Decoder, tmp_path: Path, matrix: tuple[int, int, int, int], axes: str
) -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:32, :48] = 255
    content = write(tmp_path / "clip.mp4", [image] * 6).read_bytes()
    place = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    content = content[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[place + 36 :]
    expected = {"mirrored": image[:, ::-1], "upside down": image[::-1]}.get(axes, image.transpose(1, 0, 2))
    assert np.abs(decoder.read(content, UNIFORM).frames[0].astype(int) - expected).mean() < 3


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("ffv1", "gray"),
        ("ffv1", "yuva420p"),
        ("ffv1", "yuv420p10le"),
        ("libx264", "yuv444p"),
        ("libx264", "nv12"),
    ],
)
def test_other_pixel_formats_are_read(decoder: Decoder, tmp_path: Path, codec: str, pix_fmt: str) -> None:
    path = write(tmp_path / "clip.mkv", numbered(24), codec=codec, pix_fmt=pix_fmt)
    assert numbers(decoder.read(path, UNIFORM).frames) == [1, 4, 7, 10, 13, 16, 19, 22]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3000), (3000, 2), (719, 33)])
def test_odd_sizes_are_read(decoder: Decoder, tmp_path: Path, shape: tuple[int, int]) -> None:
    path = write(tmp_path / "clip.mov", [np.full((*shape, 3), 200, np.uint8)] * 3, codec="png", pix_fmt="rgb24")
    assert (decoder.read(path, SHOTS).frames == 200).all()


def test_the_first_moving_picture_is_taken_and_a_cover_is_not(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as output:
        cover = output.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        streams = [output.add_stream("libx264", rate=12) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        output.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")))
        for image in numbered(24):
            for stream, picture in zip(streams, (image, 255 - image), strict=True):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            output.mux(stream.encode(None))
    assert numbers(decoder.read(path, UNIFORM).frames) == [1, 4, 7, 10, 13, 16, 19, 22]


def changing_size(path: Path, second_side: int) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libvpx", rate=12)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        number = 0
        for side in (64, second_side):
            encoder = av.CodecContext.create("libvpx", "w")
            encoder.width = encoder.height = side
            encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 12)
            encoder.options = {"deadline": "realtime", "lag-in-frames": "0"}
            images = [av.VideoFrame.from_ndarray(np.full((side, side, 3), 90, np.uint8), format="rgb24")] * 6
            for packet in [packet for image in [*images, None] for packet in encoder.encode(image)]:
                packet.stream, packet.time_base = stream, Fraction(1, 12)
                packet.pts = packet.dts = number
                number += 1
                output.mux(packet)
    return path


def test_a_size_that_changes_in_the_middle_is_followed_up_to_the_limit(decoder: Decoder, tmp_path: Path) -> None:
    assert decoder.read(changing_size(tmp_path / "grows.webm", 96), SHOTS).frames.shape == (8, 64, 64, 3)
    with Decoder(Limits(20.0, 0.05, 900.0, 2048, 5000)) as strict:
        assert reason(strict, changing_size(tmp_path / "bomb.webm", 320))[0] in ("too_large", "broken")


# What is not a video


def png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (64, 64)).save(content, "PNG")
    return content.getvalue()


def gif() -> bytes:
    content = io.BytesIO()
    pictures = [Image.new("RGB", (64, 64), (i * 60, 0, 0)) for i in range(4)]
    pictures[0].save(content, "GIF", save_all=True, append_images=pictures[1:])
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"0123456789", b"this is not a video\n" * 50, b"\0" * 4096, b"PK\x03\x04" + b"\0" * 200,
        b"<!doctype html><title>Before you continue</title>", png(), gif(),
    ],
    ids=["empty", "ten_bytes", "text", "zeros", "zip", "consent_page", "png", "gif"],
)  # fmt: skip
def test_what_is_no_video_is_called_so(decoder: Decoder, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert reason(decoder, path)[0] == "not_a_video"
    assert reason(decoder, content)[0] == "not_a_video"


PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT8S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
    'bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\na=control:{}\n",
}


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".mpd", ".sdp", ".txt"])
@pytest.mark.parametrize("kind", list(PLAYLISTS))
@pytest.mark.parametrize("target", ["{}", "file://{}", "good.mp4", "http://127.0.0.1:9/x.mp4"])
def test_a_playlist_opens_no_other_file(
    decoder: Decoder, tmp_path: Path, good: Path, kind: str, suffix: str, target: str
) -> None:
    (tmp_path / "good.mp4").write_bytes(good.read_bytes())
    path = tmp_path / f"clip{suffix}"
    path.write_text(PLAYLISTS[kind].format(target.format(good)))
    assert reason(decoder, path)[0] == "not_a_video"


@pytest.mark.parametrize("kind", list(PLAYLISTS))
def test_what_a_playlist_names_is_not_asked_for(decoder: Decoder, tmp_path: Path, good: Path, kind: str) -> None:
    with serving(good.read_bytes()) as server:
        for suffix in (".mp4", ".mkv", ".avi", ".webm", ".m3u8", ""):
            path = tmp_path / f"clip{suffix}"
            for target in (f"{server.root}/whole/a.mp4", f"{server.root}/whole/a.m3u8"):
                path.write_text(PLAYLISTS[kind].format(target))
                assert reason(decoder, path)[0] == "not_a_video"
        assert not server.hits


def test_sound_alone_is_not_a_video(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48000, layout="mono")
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, number * 1024
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert reason(decoder, path)[0] == "not_a_video"


@pytest.mark.parametrize(
    "name", ["file:{}", "file://{}", "concat:{}|{}", "pipe:0", "data:video/mp4;base64,AAAA", "http://x/y"]
)
def test_an_address_is_taken_for_a_file_name(decoder: Decoder, good: Path, name: str) -> None:
    assert reason(decoder, Path(name.format(good, good)))[0] == "missing"


# Names and kinds of files


def test_negative_and_repeated_timestamps_lose_no_frame(decoder: Decoder, tmp_path: Path, good: Path) -> None:
    with av.open(str(good)) as source:
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for name, stamp in (("negative", lambda i: i - 40), ("repeated", lambda i: i // 2)):
            path = tmp_path / f"{name}.mkv"
            with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as output:
                stream = output.add_stream_from_template(source.streams.video[0])
                for number, packet in enumerate(packets):
                    copy = av.Packet(bytes(packet))
                    copy.stream, copy.time_base, copy.is_keyframe = stream, Fraction(1, 12), packet.is_keyframe
                    copy.pts = copy.dts = stamp(number)
                    output.mux(copy)
            try:
                assert decoder.read(path, UNIFORM).frames.shape == (8, 64, 64, 3)
            except VideoError as error:
                assert error.status == "broken"
    assert_still_works(decoder, good)


@pytest.mark.parametrize(
    "name",
    ["-rf.mp4", "a\nb.mp4", 'it\'s "quoted".mp4', "film 🎬.mp4", "e\u0301.mp4", "%s:{}.mp4", "\udcff.mp4"],
)
def test_unusual_names_are_read(decoder: Decoder, tmp_path: Path, good: Path, name: str) -> None:
    (tmp_path / name).write_bytes(good.read_bytes())
    assert_still_works(decoder, tmp_path / name)


def test_a_relative_name_is_read_from_where_the_caller_is(
    decoder: Decoder, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "-y").write_bytes(good.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert_still_works(decoder, Path("-y"))


def test_what_is_no_regular_file_is_refused_at_once(decoder: Decoder, tmp_path: Path, good: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    began = time.monotonic()
    for name in ("fifo.mp4", "folder.mp4", "loop.mp4"):
        assert reason(decoder, tmp_path / name)[0] == "unreadable"
    assert reason(decoder, Path("/dev/zero"))[0] == "unreadable"
    assert reason(decoder, tmp_path / ("x" * 400))[0] == "unreadable"
    assert reason(decoder, tmp_path / "a\0b")[0] == "unreadable"
    assert reason(decoder, tmp_path / "gone.mp4")[0] == "missing"
    assert time.monotonic() - began < 5
    (tmp_path / "link.mp4").symlink_to(good)
    assert_still_works(decoder, tmp_path / "link.mp4")


def test_a_message_shows_the_name_as_given_and_no_more_than_a_line_of_it(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(VideoError) as caught:
        decoder.read(Path("gone\nfar away.mp4"), SHOTS)
    assert str(caught.value) == "video 'gone\\nfar away.mp4' does not exist."
    with pytest.raises(VideoError) as caught:
        decoder.read(b"x", SHOTS, name="n" * 5000)
    assert len(str(caught.value)) < 200


# Damage


def test_a_video_cut_off_anywhere_gives_an_error_or_the_right_frames(decoder: Decoder, tmp_path: Path) -> None:
    for suffix, options in (
        (".mp4", {"movflags": "+faststart"}),
        (".mp4", {}),
        (".mkv", {}),
        (".avi", {"bf": 0}),
    ):
        whole = tmp_path / f"whole{suffix}"
        with av.open(str(whole), "w", options={k: v for k, v in options.items() if k == "movflags"}) as output:
            stream = output.add_stream("libx264", rate=12)
            stream.width = stream.height = 64
            stream.options = {"g": "12"} | {k: str(v) for k, v in options.items() if k == "bf"}
            for image in numbered(96):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            output.mux(stream.encode(None))
        content = whole.read_bytes()
        expected = {settings: decoder.read(content, settings) for settings in (UNIFORM, SHOTS)}
        for share in np.linspace(0.001, 0.998, 31):
            for settings in (UNIFORM, SHOTS):
                try:
                    clip = decoder.read(content[: int(len(content) * share)], settings)
                except VideoError as error:
                    assert error.status in ("broken", "not_a_video"), (suffix, share, str(error))
                else:
                    assert numbers(clip.frames) == numbers(expected[settings].frames), (
                        suffix,
                        options,
                        share,
                    )


FRAGMENTED = {
    "no_promise": "frag_keyframe+empty_moov",
    "segment_index": "dash+frag_keyframe+global_sidx",
    "first_fragment_in_index": "frag_keyframe",
}


@pytest.mark.parametrize("flags", list(FRAGMENTED.values()), ids=list(FRAGMENTED))
def test_a_fragmented_mp4_that_ends_early_is_cut_off(decoder: Decoder, good: Path, tmp_path: Path, flags: str) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(good)) as source, av.open(str(path), "w", options={"movflags": flags}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    content = path.read_bytes()
    assert numbers(decoder.read(content, UNIFORM).frames) == [6 + 12 * i for i in range(8)]
    last = content.rindex(b"moof") - 4
    for end in (last + 4, last + 60, last - 1, content.rindex(b"mdat") + 40):
        assert reason(decoder, content[:end])[0] == "broken"
    if "sidx" in flags:
        status, text = reason(decoder, content[:last])
        assert status == "broken" and "promises 8." in text


def test_a_fragmented_mp4_whose_header_promises_more_is_cut_off(decoder: Decoder, good: Path, tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov"}
    content = write(tmp_path / "clip.mp4", numbered(96), container_options=options).read_bytes()
    place = content.index(b"mvhd") + 16
    unit = int.from_bytes(content[place : place + 4], "big")
    for seconds in (8, 160):
        promising = content[: place + 4] + struct.pack(">I", seconds * unit) + content[place + 8 :]
        if seconds == 8:
            assert decoder.read(promising, UNIFORM).duration_s == pytest.approx(8.0)
        else:
            assert "promises 160.0 s and holds 8." in reason(decoder, promising)[1]


def test_flipped_bits_never_take_the_decoder_down(decoder: Decoder, good: Path) -> None:
    rng = np.random.default_rng(3)
    content = np.frombuffer(good.read_bytes(), np.uint8)
    for _ in range(60):
        damaged = content.copy()
        places = rng.integers(0, len(damaged), 12)
        damaged[places] ^= (1 << rng.integers(0, 8, 12)).astype(np.uint8)
        try:
            clip = decoder.read(damaged.tobytes(), SHOTS)
        except VideoError as error:
            assert error.status not in ("timeout", "missing")
        else:
            assert clip.frames.shape == (8, 64, 64, 3)
    assert_still_works(decoder, good)


# Bounds


# Many


# Writing
