"""Subtitles out of files of every form and out of a film's own track."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.films import write_film
from builders.refusals import sentence
from cinetune.data import subtitles

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


ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,nobody says this
Dialogue: 0,0:00:01.00,0:00:02.50,Default,Ana,0,0,0,,{\\i1}Hello{\\i0} there,\\NAna.
Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\p1}m 0 0 l 10 10{\\p0}
Dialogue: 0,0:00:04.00,0:00:05.00,Default,,0,0,0,,{\\an8}Bye &amp; go.
"""


@pytest.mark.parametrize(("name", "content"), [("a.srt", SRT), ("a.vtt", VTT), ("a.ass", ASS), ("b.txt", SRT)])
def test_timed_subtitles_are_words_of_the_part_that_is_looked_at(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    for written in (content.encode(), content.replace("\n", "\r\n").encode("utf-8-sig"), content.encode("utf-16")):
        path.write_bytes(written)
        assert subtitles.read_file(path, 0, float("inf")) == "Hello there, Ana.\nBye & go."
        assert subtitles.read_file(path, 2, 4) == "Hello there, Ana."
        assert subtitles.read_file(path, 2.5, 9) == "Bye & go."
        assert subtitles.read_file(path, 6, 9) == ""


def test_numbers_and_times_of_subtitles_are_no_words(tmp_path: Path) -> None:
    """Without blank lines between them, all cues were one, and the numbers and times of the others its words."""
    path = tmp_path / "a.srt"
    cues = ["Hello.", "How many?\n42", "<b>Bye</b>.\n7"]
    timed = [f"{i}\n00:00:0{i},000 --> 00:00:0{i},900\n{words}" for i, words in enumerate(cues, 1)]
    for between in ("\n", "\n\n", "\n \n\n"):
        path.write_text(between.join(timed) + "\n", encoding="utf-8")
        assert subtitles.read_file(path, 0, 9) == "Hello.\nHow many? 42\nBye. 7"
    path.write_text(
        "WEBVTT\n\n00:01.000 --> 00:01.900\nHow<00:01.200><c> many</c><00:01.500><c> now?</c>\n42\n\n"
        "NOTE nobody says this\n\nintro\n00:03.000 --> 00:03.900\nBye.\n7\n",
        encoding="utf-8",
    )
    assert subtitles.read_file(path, 0, 9) == "How many now? 42\nBye. 7"


def test_times_that_are_none_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.ass"
    path.write_text(ASS.replace("0:00:04.00", "soon"), encoding="utf-8")
    assert "convert them to SRT" in sentence(lambda: subtitles.read_file(path, 0, 9))


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
    monkeypatch.setattr(subtitles, "MAX_BYTES", 3)
    assert "above the limit" in sentence(lambda: subtitles.read_file(path, 0, 9))
    assert "cannot be read" in sentence(lambda: subtitles.read_file(tmp_path, 0, 9))


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
