"""Links and titles of strangers: one id for one video, the film of a clip, and never a path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from builders.refusals import sentence
from cinetune.data import intake, links
from cinetune.errors import InputError
from cinetune.frames import executors
from cinetune.frames.encoding import encode
from cinetune.frames.executors import Work
from cinetune.frames.limits import Limits
from cinetune.frames.sampling import FrameSettings
from cinetune.serving import sources
from cinetune.task import checks, clip_ids
from cinetune.task.description import CINEPILE

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    "link",
    [
        "https://youtube.com/watch?v=-aB3_xyz-09",
        "http://www.youtube.com/watch?v=-aB3_xyz-09&t=42s",
        "https://m.youtube.com/watch?app=desktop&v=-aB3_xyz-09&list=PL0123456789abcdef&index=3",
        "https://youtu.be/-aB3_xyz-09",
        "https://youtu.be/-aB3_xyz-09?si=abc&t=10",
        "https://www.youtube.com/shorts/-aB3_xyz-09",
        "https://www.youtube-nocookie.com/embed/-aB3_xyz-09?start=5",
        "HTTPS://YouTube.com/watch?v=-aB3_xyz-09#t=1m",
        "youtube.com/watch?v=-aB3_xyz-09",
        "www.youtube.com/watch?v=-aB3_xyz-09&t=3",
        "//www.youtube.com/embed/-aB3_xyz-09",
        "youtu.be/-aB3_xyz-09",
        "www.YouTube-nocookie.com/embed/-aB3_xyz-09",
        "https://youtube-nocookie.com/embed/-aB3_xyz-09",
        "https://gaming.youtube.com/watch?v=-aB3_xyz-09",
        "https://www.youtube.com./watch?v=-aB3_xyz-09",
        "https://www.youtube.com:443/watch/-aB3_xyz-09",
        "https://www.youtubekids.com/watch?v=-aB3_xyz-09",
    ],
)
def test_one_video_has_one_id_under_all_its_links(link: str) -> None:
    found = links.read_link(link)
    assert found == links.Link("youtube", "https://www.youtube.com/watch?v=-aB3_xyz-09", "-aB3_xyz-09")
    assert clip_ids.check(found.clip_id) is None


@pytest.mark.parametrize(
    "link",
    [
        "", " ", None, 7, float("nan"), "https://youtube.com/watch?v=short", "https://youtube.com/watch?v=twelve_chars",
        "https://youtube.com/watch?v=aaaaaaaaaaa&v=bbbbbbbbbbb", "https://youtube.com/playlist?list=PL0123456789",
        "https://youtube.com/watch?v=../../../etc", "https://youtube.com/", "https://youtu.be/", "https://youtu.be/a/b",
        "https://youtube.com/watch?v=aaaaa%2Faaaaa", "https://youtube.com/watch?v=ａａａａａａａａａａａ",
        "https://youtube.com/watch?v=aaaaaaaaaaa\n--exec=x", "https://", "http://[::1", "ftp://host/a.mp4", "pipe:0",
        "concat:a|b", "data:video/mp4;base64,AAAA", "javascript:alert(1)", "file://other-host/a.mp4", "a\0b",
    ],
)  # fmt: skip
def test_what_is_no_link_to_one_video_is_refused_in_one_sentence(link: object) -> None:
    sentence(lambda: links.read_link(link))


@pytest.mark.parametrize("link", ["youtube.com/channel/a", "gaming.youtube.com/", "https://nocookie.youtube.com/a.mp4"])
def test_what_is_on_youtube_and_no_video_is_no_file(link: str) -> None:
    assert "no video id" in sentence(lambda: links.read_link(link))


@pytest.mark.parametrize("link", ["https://myyoutube.com/watch?v=-aB3_xyz-09", "https://youtube.com.example.org/a"])
def test_a_host_that_only_looks_like_youtube_is_another(link: str) -> None:
    assert links.read_link(link).kind == "http"


def test_other_links_are_addresses_or_files_with_an_id_of_their_own() -> None:
    found = [
        links.read_link(link)
        for link in ("http://127.0.0.1:8000/a%20b.mp4?token=x", "clips/é 🎬.mp4", "file:///a/b.mp4")
    ]
    assert [link.kind for link in found] == ["http", "file", "file"]
    assert [link.url for link in found[1:]] == ["clips/é 🎬.mp4", "/a/b.mp4"]
    assert len({link.clip_id for link in found}) == 3 and all(clip_ids.check(link.clip_id) is None for link in found)


IDS = ["-aB3_xyz-09", "_", "a.b", "scene-1..2.", "x" * 100]
NO_IDS = [".", "..", ".hidden", "a/b", "../a", "a\\b", "a b", "é", "x" * 101]


@pytest.mark.parametrize("clip_id", ["", "a\0b", "a\n", None, 3, *NO_IDS])
def test_what_could_be_another_file_is_no_id(clip_id: object) -> None:
    assert clip_ids.check(clip_id) is not None


def test_an_id_is_one_from_the_download_to_the_server(tmp_path: Path) -> None:
    """One with a dot, or of 80 letters, was downloaded and trained on and then refused by the server."""
    rows = [{"url": f"http://127.0.0.1/{n}", "title": "A", "clip_id": name} for n, name in enumerate(IDS + NO_IDS)]
    (tmp_path / "links.json").write_text(json.dumps(rows), encoding="utf-8")
    taken = intake.read(str(tmp_path / "links.json"), "", None, tmp_path)
    assert list(taken.clips["train"]) == IDS and len(taken.rejected) == len(NO_IDS)

    question = {"movie_name": "A", "question": "Who?", "year": 1999, "subtitles": "", "choices": list("abcde")}
    question |= {"answer_key": "a", "answer_key_position": 0, "question_category": "Temporal"}
    reasons = {name: checks.check_row(checks.named({**question, "clip_id": name}, CINEPILE)) for name in IDS + NO_IDS}
    assert [name for name, reason in reasons.items() if reason is None] == IDS

    clips = tmp_path / "clips"
    clips.mkdir()
    for name in IDS:
        encode(clips / f"{name}.mp4", [np.zeros((16, 16, 3), np.uint8)] * 4, 4)
    for path in (clips / "hidden.mp4", tmp_path / "a.mp4"):
        path.write_bytes((clips / "_.mp4").read_bytes())
    settings = FrameSettings("uniform", num_frames=1, size=16, cut_threshold=30.0, min_shot_frames=8)
    work = Work(tmp_path / "frames", clips, settings, Limits(20.0, 9.0, 900.0, 2048, 5000), workers=1)
    assert list(executors.here(work, [IDS + NO_IDS])) == [True] * len(IDS) + [False] * len(NO_IDS)

    for name in IDS:
        assert sources.read_clip(clips, name) == (clips / f"{name}.mp4").read_bytes()
    for name in NO_IDS:
        with pytest.raises(InputError, match="clip_id must be"):
            sources.read_clip(clips, name)


@pytest.mark.parametrize(
    ("title", "film"),
    [
        ("Stone, Paper/Knife (2/9) Movie CLIP - The Long, Long Way (1987) HD", "Stone, Paper/Knife (1987)"),
        ("The Grey Harbour (2011) - A Narrow Bridge Scene (7/10) | Somechannel", "The Grey Harbour (2011)"),
        ("The Grey Harbour 2: Low Tide - No Boats Scene (1/8) | Somechannel", "The Grey Harbour 2: Low Tide"),
        ("The Third Lamp #4 Movie CLIP - Who Lit It? (2009) HD", "The Third Lamp (2009)"),
        ("The Third Lamp Movie CLIP - Who Lit It? (2009) HD", "The Third Lamp (2009)"),
        ("Nobody Sails Tonight! - Harbour Men (7/8) Movie CLIP (1992) HD", "Harbour Men (1992)"),
        ("Fog Scene - 41 (2023) | Somechannel", "41 (2023)"),
        ("Route 9: Part 3 - Ashes (2019) - Toll Booth Scene (3/12) | Somechannel", "Route 9: Part 3 - Ashes (2019)"),
        ("Harbour Men (1992) Tide: Old and New Scene (6/8) | Somechannel", "Harbour Men (1992)"),
        ("1999 (3/5) Movie CLIP - Midnight (1998) HD", "1999 (1998)"),
        ("../../etc/passwd (2001) - Root Scene (1/2) | Somechannel", "../../etc/passwd (2001)"),
        ("Übergrößen – l’été (2004) - 2 Scene | Somechannel", "Übergrößen – l’été (2004)"),
        ("just a name", "just a name"),
        ('The Grey Harbour (8/10) Movie CLIP - Low" Tide (2011) HD"', "The Grey Harbour (2011)"),
        ('The Grey Harbour (8/10) Movie CLIP - Low Tide" (2011)"', "The Grey Harbour (2011)"),
        ("Tide! (2020 - The Dog Comes Home Scene (1/10) | Somechannel", "Tide! (2020)"),
        ("The Old Firm 4/10) Movie CLIP - Enemies (1988) HD", "The Old Firm (1988)"),
        ("Booby Stairs (3/10) Movie CLIP - Lamp: Sailor's Tomb Movie (2008) - HD", "Lamp: Sailor's Tomb (2008)"),
        ("Master and Mate Scene (2/5) Talk with the Fog: Tales Movie (1994)", "Talk with the Fog: Tales (1994)"),
        ("Just Sail with It (2011) Movie CLIP #4  - The Deal", "Just Sail with It (2011)"),
        ("Harbour Men (1992) - HD", "Harbour Men (1992)"),
    ],
)  # fmt: skip
def test_the_film_is_found_in_titles_of_every_form(title: str, film: str) -> None:
    assert str(links.film_of(title)) == film


def test_films_of_one_name_are_told_apart_by_year() -> None:
    titles = ["Robin of the Wood (1991) - Bow Scene | X", "Robin of the Wood (2010) - Bow Scene | X"]
    assert len({links.film_of(title) for title in titles}) == 2
    assert len(set(links.films_of(titles * 5))) == 2
    assert len(set(links.films_of([*titles * 5, "Robin of the Wood - Which One? Scene | X"]))) == 3


@pytest.mark.parametrize(
    "other",
    [
        "The Grey Harbour - No Year Scene (2/10) | Somechannel",
        "THE GREY HARBOUR (2011) - Loud Scene (3/10) | Somechannel",
        "The grey  Harbour (2011) - Quiet Scene (3/10) | Somechannel",
        "The Grey Harbour (2012) - Next Year Scene (3/10) | Somechannel",
        "The Grey Harbour (2001) - Misprint Scene (3/10) | Somechannel",
        "The Grey Harbour Movie (2011) - Pier Scene (3/10) | Somechannel",
        "Sailing Away SCENE - The Grey Harbour MOVIE (2011) - HD",
        "Loving Mary & Tom Scene The Grey Harbour (2011) | Somechannel",
        "The Grey Harbour - I Thought You Had a Boat (2011) HD",
        "The Grey Harbour - No Boat - None Scene (2011)",
    ],
)
def test_what_most_titles_call_a_film_corrects_the_others(other: str) -> None:
    titles = [f"The Grey Harbour (2011) - Bridge {number} Scene ({number}/9) | Somechannel" for number in range(1, 4)]
    assert set(links.films_of([other, *titles])) == {"The Grey Harbour (2011)"}


def test_a_film_of_its_own_keeps_its_name() -> None:
    titles = ["The Lamp Movie (2011) - Pier Scene (1/2) | X", "Scary Lamp Movie (2011) - Pier Scene (1/2) | X"]
    titles += ["Fog - Lamp (2010) - Pier Scene | X", "Fog (1999) - Pier Scene | X"] * 2
    assert links.films_of(titles) == [
        "The Lamp Movie (2011)", "Scary Lamp Movie (2011)", *["Fog - Lamp (2010)", "Fog (1999)"] * 2
    ]  # fmt: skip
