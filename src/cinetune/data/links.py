"""What a clip's link and title say: its id, and the film that it is from. Neither is ever used as a path."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from cinetune.errors import InputError
from cinetune.task.groups import group_key

YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}", re.ASCII)
# And every host below them: www, m, music, gaming.
YOUTUBE_DOMAINS = ("youtube.com", "youtube-nocookie.com", "youtubekids.com", "youtube.googleapis.com")
SHORT_DOMAIN = "youtu.be"
WITHOUT_SCHEME = re.compile(
    r"(?://)?(?:[\w-]+\.)*(?:" + "|".join(map(re.escape, (*YOUTUBE_DOMAINS, SHORT_DOMAIN))) + r")(?::\d+)?/", re.I
)
PATHS_WITH_ID = {"shorts", "embed", "live", "v", "e", "watch"}
DERIVED_ID_DIGITS = 16
# A bracket is forgotten now and then.
YEAR = r"\((?P<year>(?:18|19|20)\d\d)(?:\)|(?=\s+[-–—]\s))"
PART = r"(?:\(?\d+/\d+\)|#\d+)"
DASH = r"\s+[-–—]\s+"
CLIP = r"(?:Movie\s+)?C(?:LIP|lip)"
TITLES = (
    # Scene - Film (7/10) Movie CLIP (1999)
    re.compile(rf"(?:.+{DASH})?(?P<film>.+?)\s*{PART}?\s+{CLIP}\s*{YEAR}$"),
    # Scene (7/10) Movie CLIP - Film Movie (1999), Scene (7/10) Film Movie (1999)
    re.compile(rf".+?\s*{PART}\s+(?:{CLIP}{DASH})?(?P<film>\w.+?)\s+M(?:ovie|OVIE)\s*{YEAR}$"),
    # Film (1999) Movie CLIP #7 - Scene
    re.compile(rf"(?P<film>.+?)\s*{YEAR}\s+{CLIP}\b.*$"),
    # Film (7/10) Movie CLIP - Scene (1999)
    re.compile(rf"(?P<film>.+?)\s*{PART}?\s+{CLIP}\b.*?(?:{YEAR})?$"),
    # Scene - Film (1999) | Channel
    re.compile(rf"(?:.+{DASH})?(?P<film>.+?)\s*{YEAR}\s*(?:\|.*)?$"),
    # Film (1999) - Scene (7/10) | Channel
    re.compile(rf"(?P<film>.+?)\s*{YEAR}(?:\W.*)?$"),
    # Film - Scene (7/10) | Channel
    re.compile(rf"(?P<film>.+?){DASH}.*$"),
)
# What stands behind the year, an inner quote that was torn out included: `HD`, `- HD`, `HD"`.
TAIL = re.compile(r"""(?:\s+(?:-\s+)?HD)?["”]*$""")
MIN_TITLES_OF_RIGHT_YEAR = 3


@dataclass(frozen=True)
class Link:
    """Where a clip is: `kind` is youtube, http or file; `url` is a canonical address, or a path."""

    kind: str
    url: str
    clip_id: str

    @property
    def server(self) -> str:
        """Who is asked for it; empty for a file."""
        return "" if self.kind == "file" else urlsplit(self.url).netloc


def read_link(link: object) -> Link:
    """Raises InputError for what is no link to one video."""
    shown = repr(link if not isinstance(link, str) or len(link) <= 120 else link[:117] + "...")
    if not isinstance(link, str) or not link or link != link.strip() or re.search(r"[\x00-\x1f\x7f]", link):
        raise InputError(f"link {shown} is no link to a video: write https://youtube.com/watch?v=<11 characters>.")
    address = f"https://{link.removeprefix('//')}" if WITHOUT_SCHEME.match(link) else link
    try:
        parts = urlsplit(address)
        host = (parts.hostname or "").lower().removesuffix(".")
    except ValueError:
        raise InputError(f"link {shown} cannot be read: write https://youtube.com/watch?v=<11 characters>.") from None
    if parts.scheme in ("http", "https"):
        if not host:
            raise InputError(f"link {shown} names no server: write it whole.")
        is_short = _is_below(host, SHORT_DOMAIN)
        if is_short or any(_is_below(host, domain) for domain in YOUTUBE_DOMAINS):
            clip_id = _youtube_id(is_short, parts.path, parts.query, shown)
            return Link("youtube", f"https://www.youtube.com/watch?v={clip_id}", clip_id)
        return Link("http", link, _derived_id(link))
    if parts.scheme == "file" and host in ("", "localhost"):
        return Link("file", unquote(parts.path), _derived_id(link))
    if parts.scheme:
        raise InputError(f"link {shown} has the scheme {parts.scheme!r}: give a web address or a file.")
    return Link("file", link, _derived_id(link))


def _is_below(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _youtube_id(is_short: bool, path: str, query: str, shown: str) -> str:
    steps = [step for step in path.split("/") if step]
    if is_short:
        found = steps if len(steps) == 1 else []
    elif len(steps) == 2 and steps[0] in PATHS_WITH_ID:
        found = steps[1:]
    else:
        found = parse_qs(query).get("v", []) if steps == ["watch"] else []
    if len(found) != 1 or not YOUTUBE_ID.fullmatch(found[0]):
        raise InputError(f"link {shown} holds no video id of 11 characters: write https://youtube.com/watch?v=<id>.")
    return found[0]


def _derived_id(link: str) -> str:
    return hashlib.sha256(link.encode("utf-8", "surrogatepass")).hexdigest()[:DERIVED_ID_DIGITS]


class Film(NamedTuple):
    """What a title says; the year is empty where it says none."""

    name: str
    year: str

    def __str__(self) -> str:
        return f"{self.name} ({self.year})" if self.year else self.name

    @property
    def key(self) -> Film:
        """The same for every spelling."""
        return Film(group_key(self.name), self.year)


def film_of(title: str) -> Film:
    """The film named in a clip's title, with its year where one is given; the whole title where no form fits."""
    title = TAIL.sub("", " ".join(title.split()))
    for form in TITLES:
        found = form.match(title)
        if found:
            return Film(found["film"].strip(), found.groupdict().get("year") or "")
    return Film(title, "")


def films_of(titles: Sequence[str]) -> list[str]:
    """The films of many titles, where what most of them say corrects the others: spellings and wrong years."""
    films = [film_of(title) for title in titles]
    counts = Counter(film.key for film in films)
    dated: dict[str, list[Film]] = {}
    for film in counts:
        dated.setdefault(film.name, []).extend([film] if film.year else [])
    # Of a film's spellings the most frequent one.
    spelled = {film.key: film for film, _ in sorted(Counter(films).items(), key=lambda item: (item[1], item[0]))}
    found = (_corrected(group_key(title), film.key, counts, dated) for title, film in zip(titles, films, strict=True))
    # What was corrected may itself be written in several ways.
    return [str(spelled[_corrected("", film, counts, dated)]) for film in found]


def _corrected(title: str, film: Film, counts: Counter[Film], dated: Mapping[str, list[Film]]) -> Film:
    """The film that more of the titles speak of, where this one may mean it too; all of them as keys.

    dated: by name the films of that name that have a year.
    """
    others = dated[film.name]
    if not film.year:
        return others[0] if len(others) == 1 else film
    names = [film.name.removesuffix(" movie"), film.name.rpartition(" scene ")[2]]
    names += [title[: dash.start()] for dash in re.finditer(DASH, title)]
    meant = [other for name in names if (other := Film(name, film.year)) in counts]
    meant += [other for other in others if _is_misprint(film, other, counts)]
    return max([film, *meant], key=lambda other: (counts[other], other.name != film.name, -int(other.year)))


def _is_misprint(film: Film, other: Film, counts: Counter[Film]) -> bool:
    """Whether one film's year was written as another: the next, or one digit off in a single title."""
    digits = sum(one != two for one, two in zip(film.year, other.year, strict=True))
    is_single = counts[film] == 1 and digits == 1 and counts[other] >= MIN_TITLES_OF_RIGHT_YEAR
    return is_single or abs(int(film.year) - int(other.year)) == 1
