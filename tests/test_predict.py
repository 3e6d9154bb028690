"""One question about one film: its subtitles, the part that is looked at, the frames on one sheet."""

from __future__ import annotations

import http.server
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.subtitles.subtitle import SubtitleSet
from PIL import Image

from cinetune import contact_sheet, params, remote, sources, subtitles, video
from cinetune.frames import ClipFrames, FrameSettings
from cinetune.stages import predict
from conftest import recording, sentence

pytestmark = pytest.mark.serving

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i> there,
Ana.

2
00:00:04,000 --> 00:00:05,000 X1:40 X2:600
{\\an8}Bye &amp; go.

3
01:00:00,000 --> 01:00:01,000
<font color="#fff"></font>
"""
VTT = """WEBVTT - a film

NOTE nobody says this

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 align:start
<v Ana>Hello <00:01.500>there,
Ana.

00:04.000 --> 00:05.000
Bye &amp; go.
"""


@pytest.mark.parametrize(("name", "content"), [("a.srt", SRT), ("a.vtt", VTT), ("b.txt", SRT)])
def test_timed_subtitles_are_words_of_the_part_that_is_looked_at(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    for written in (content.encode(), content.replace("\n", "\r\n").encode("utf-8-sig"), content.encode("utf-16")):
        path.write_bytes(written)
        assert subtitles.read_file(path, 0, float("inf")) == "Hello there, Ana.\nBye & go."
        assert subtitles.read_file(path, 2, 4) == "Hello there, Ana."
        assert subtitles.read_file(path, 2.5, 9) == "Bye & go."
        assert subtitles.read_file(path, 6, 9) == ""


def test_plain_text_is_taken_whole_and_a_line_that_stays_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(" Hello.\nBye.\n")
    assert subtitles.read_file(path, 5, 9) == "Hello.\nBye."
    rolling = "\n\n".join(f"00:0{i}.000 --> 00:0{i + 1}.000\nThe same." for i in range(3))
    path.write_text(f"WEBVTT\n\n{rolling}")
    assert subtitles.read_file(path, 0, 9) == "The same."


def test_what_is_no_text_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes("café".encode("latin-1"))
    assert "not UTF-8" in sentence(lambda: subtitles.read_file(path, 0, 9))
    monkeypatch.setattr(subtitles, "MOST_BYTES", 3)
    assert "above the limit" in sentence(lambda: subtitles.read_file(path, 0, 9))
    assert "cannot be read" in sentence(lambda: subtitles.read_file(tmp_path, 0, 9))


def write_film(path: Path, seconds: int, words: dict[float, str]) -> None:
    """A film of a grey that grows by one each second, with a track of subtitles of one second each."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=8)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        track = container.add_stream("mov_text" if path.suffix == ".mp4" else "subrip") if words else None
        if track:
            header = b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname\r\n"
            track.codec_context.subtitle_header = header + b"Style: Default,Arial\r\n\r\n[Events]\r\n"
            unit = 1000 if path.suffix == ".mkv" else 1_000_000
        for number in range(8 * seconds):
            picture = np.full((64, 64, 3), 10 * (number // 8), np.uint8)
            for packet in pictures.encode(av.VideoFrame.from_ndarray(picture)):
                container.mux(packet)
        for at, line in words.items():
            shown = SubtitleSet.create(f"0,0,Default,,0,0,0,,{line}".encode(), 0, unit, int(at * unit))
            packet = track.codec_context.encode_subtitle(shown)
            packet.stream = track
            container.mux(packet)
        for packet in pictures.encode(None):
            container.mux(packet)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_films_own_track_is_read_and_a_film_without_one_is_silent(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    write_film(path, 6, {1.0: "Hello\\Nthere.", 4.0: "{\\i1}Bye{\\i0}, all."})
    assert subtitles.embedded(path, 0, float("inf"), 60) == "Hello there.\nBye, all."
    assert subtitles.embedded(path, 3, 9, 60) == "Bye, all."
    write_film(path, 2, {})
    assert subtitles.embedded(path, 0, 9, 60) == ""


def test_a_broken_film_has_no_subtitles_but_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"ffconcat version 1.0\nfile /etc/passwd\n")
    assert "cannot be read" in sentence(lambda: subtitles.embedded(path, 0, 9, 60))


def test_only_the_part_that_is_asked_for_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_film(path, 20, {})
    frames = params.load().override("frames", {"max_duration_s": 6.0}).frames
    settings = FrameSettings.of(frames)
    with video.Decoder(video.Limits.of(frames)) as decoder:
        assert "above the limit" in sentence(lambda: decoder.read(path, settings))
        clip = decoder.read(path, settings, None, (10.0, 14.0))
        assert all(10 < time_s < 14 for time_s in clip.times) and clip.duration_s == 4.0
        seconds = [round(float(frame.mean()) / 10) for frame in clip.frames]
        assert seconds == [int(time_s) for time_s in clip.times]
        assert decoder.read(path, settings, None, (16.0, 0.0)).duration_s == 4.0
        assert "above the limit" in sentence(lambda: decoder.read(path, settings, None, (2.0, 0.0)))
        assert "nothing lies between" in sentence(lambda: decoder.read(path, settings, None, (30.0, 40.0)))
        whole = decoder.read(path, FrameSettings.of(params.load().frames), None, (0.0, 5.0))
        assert whole.times[0] < 1


def test_all_frames_are_on_the_sheet_in_order(tmp_path: Path) -> None:
    frames = np.stack([np.full((64, 64, 3), 30 * number, np.uint8) for number in range(6)])
    contact_sheet.save(ClipFrames(frames, tuple(range(6)), (), 7.0), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    width = pixels.shape[1] // 4
    assert [int(pixels[40, width // 2 + n * width, 0]) for n in range(4)] == [0, 30, 60, 90]
    assert [int(pixels[pixels.shape[0] // 2 + 40, width // 2 + n * width, 0]) for n in range(2)] == [120, 150]


def asked(**values: Any) -> Any:
    return params.load().override("predict", {"video": "clip:a", "question": "Who?"} | values).predict


def test_wrong_questions_are_told_before_a_model_is_loaded() -> None:
    assert "not after predict.start" in sentence(lambda: predict.check(asked(start=5.0, end=5.0)))
    assert "'no.srt' do not exist" in sentence(lambda: predict.check(asked(subtitles="no.srt")))
    predict.check(asked(subtitles="Just words."))


def test_a_question_about_a_film_leaves_answer_and_sheet(
    served_folder: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, given = served_folder
    write_film(tmp_path / "film.mp4", 8, {5.0: "Ana has the key."})
    monkeypatch.chdir(root)
    monkeypatch.setenv("CINETUNE_UNTRACKED", "1")
    values = {"model": "adapter", "video": str(tmp_path / "film.mp4"), "question": "Who has the key?", "start": 4.0}
    answer = predict.run(given.override("predict", values))
    assert answer["raw"] and answer["error"] is None
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == answer
    [folder] = root.glob("outputs/runs/*/predict")
    saved = json.loads((folder / predict.ANSWER).read_text())
    assert saved["answer"] == answer["answer"] and all(4 < time_s < 8 for time_s in saved["times_s"])
    assert (folder / predict.SHEET).is_file()


# ---- videos behind links


@pytest.fixture
def site() -> Iterator[tuple[int, list[str]]]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path.startswith("/to/"):
            request.send_response(302)
            request.send_header("Location", request.path.removeprefix("/to/"))
            request.end_headers()
        elif request.path == "/slow":
            request.send_response(200)
            request.end_headers()
            for _ in range(50):
                request.wfile.write(b"x")
                time.sleep(0.1)
        else:
            request.send_response(200 if request.path != "/gone" else 404)
            request.end_headers()
            request.wfile.write(b"x" * (int(request.path[1:]) if request.path[1:].isdigit() else 3))

    with recording(answer) as found:
        yield found


def test_a_link_is_followed_on_allowed_hosts_alone(site: tuple[int, list[str]]) -> None:
    port, hits = site
    base = f"http://127.0.0.1:{port}"

    def fetch(url: str, *hosts: str) -> bytes:
        return remote.fetch(url, hosts, 1000, 1.0)

    assert fetch(f"{base}/1000", "127.0.0.1") == b"x" * 1000
    assert fetch(f"{base}/to/{base}/5", "127.0.0.1") == b"x" * 5
    assert sources.read(f"{base}/7", Path("nowhere"), ["127.0.0.1"], 1.0) == b"x" * 7
    hits.clear()
    with pytest.raises(remote.InputError, match="paths and addresses are not opened"):
        sources.read(f"{base}/7", Path("nowhere"), [], 1.0)
    for url, hosts, words in (
        (f"{base}/5", ("example.org",), "not fetched from host"),
        (f"http://localhost:{port}/5", ("localhost",), "leads into this network"),
        (f"http://user@127.0.0.1:{port}/5", ("127.0.0.1",), "cannot be read"),
        (f"ftp://127.0.0.1:{port}/5", ("127.0.0.1",), "cannot be read"),
        ("http://127.0.0.1:99999/5", ("127.0.0.1",), "cannot be read"),
        (f"{base}/5\r\nX: y", ("127.0.0.1",), "cannot be read"),
        ("http://[::1", ("127.0.0.1",), "cannot be read"),
    ):
        with pytest.raises(remote.InputError, match=words):
            fetch(url, *hosts)
    assert hits == []
    for path, words in (
        (f"/to/http://localhost:{port}/5", "not fetched from host 'localhost'"),
        ("/to/file:///etc/passwd", "cannot be read"),
        ("/to//to//to//to//to/5", "redirects"),
        ("/1001", "above the limit"),
        ("/gone", "answers 404"),
        ("/slow", "took too long"),
    ):
        with pytest.raises(remote.InputError, match=words):
            fetch(f"{base}{path}", "127.0.0.1")
    assert "/5" not in hits
