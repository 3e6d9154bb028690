"""Links and titles of strangers: one id for one video, the film of a clip, and never a path."""

from __future__ import annotations

import pytest

from cinetune import links
from conftest import sentence

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
    ],
)
def test_one_video_has_one_id_under_all_its_links(link: str) -> None:
    found = links.read_link(link)
    assert found == links.Link("youtube", "https://www.youtube.com/watch?v=-aB3_xyz-09", "-aB3_xyz-09")
    assert links.is_safe_id(found.clip_id)


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


def test_other_links_are_addresses_or_files_with_an_id_of_their_own() -> None:
    found = [
        links.read_link(link)
        for link in ("http://127.0.0.1:8000/a%20b.mp4?token=x", "clips/é 🎬.mp4", "file:///a/b.mp4")
    ]
    assert [link.kind for link in found] == ["http", "file", "file"]
    assert [link.url for link in found[1:]] == ["clips/é 🎬.mp4", "/a/b.mp4"]
    assert len({link.clip_id for link in found}) == 3 and all(links.is_safe_id(link.clip_id) for link in found)


@pytest.mark.parametrize("clip_id", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0b", "a b", "é", "x" * 101, None, 3])
def test_what_could_be_another_file_is_no_id(clip_id: object) -> None:
    assert not links.is_safe_id(clip_id)


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
    ],
)  # fmt: skip
def test_the_film_is_found_in_titles_of_every_form(title: str, film: str) -> None:
    assert links.film_of(title) == film


def test_films_of_one_name_are_told_apart_by_year() -> None:
    titles = ["Robin of the Wood (1991) - Bow Scene | X", "Robin of the Wood (2010) - Bow Scene | X"]
    assert len({links.film_of(title) for title in titles}) == 2
