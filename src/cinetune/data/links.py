"""What a clip's link and title say: its id, and the film that it is from. Neither is ever used as a path."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from cinetune.errors import InputError

YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}", re.ASCII)
YOUTUBE_HOSTS = {"youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "www.youtube-nocookie.com"}
SHORT_HOSTS = {"youtu.be", "www.youtu.be"}
PATHS_WITH_ID = {"shorts", "embed", "live", "v"}
DERIVED_ID_DIGITS = 16
YEAR = r"\((?P<year>(?:18|19|20)\d\d)\)"
PART = r"(?:\(\d+/\d+\)|#\d+)"
DASH = r"\s+[-–—]\s+"
TITLES = (
    # Scene - Film (7/10) Movie CLIP (1999) HD
    re.compile(rf"(?:.+{DASH})?(?P<film>.+?)\s*{PART}?\s+(?:Movie\s+)?C(?:LIP|lip)\s*{YEAR}(?:\s*HD)?$"),
    # Film (7/10) Movie CLIP - Scene (1999) HD
    re.compile(rf"(?P<film>.+?)\s*{PART}?\s+(?:Movie\s+)?C(?:LIP|lip)\b.*?(?:{YEAR})?(?:\s*HD)?$"),
    # Scene - Film (1999) | Channel
    re.compile(rf"(?:.+{DASH})?(?P<film>.+?)\s*{YEAR}\s*(?:\|.*)?$"),
    # Film (1999) - Scene (7/10) | Channel
    re.compile(rf"(?P<film>.+?)\s*{YEAR}(?:\W.*)?$"),
    # Film - Scene (7/10) | Channel
    re.compile(rf"(?P<film>.+?){DASH}.*$"),
)


@dataclass(frozen=True)
class Link:
    """Where a clip is: `kind` is youtube, http or file; `url` is a canonical address, or a path."""

    kind: str
    url: str
    clip_id: str


def read_link(link: object) -> Link:
    """Raises InputError for what is no link to one video."""
    shown = repr(link if not isinstance(link, str) or len(link) <= 120 else link[:117] + "...")
    if not isinstance(link, str) or not link or link != link.strip() or re.search(r"[\x00-\x1f\x7f]", link):
        raise InputError(f"link {shown} is no link to a video: write https://youtube.com/watch?v=<11 characters>.")
    try:
        parts = urlsplit(link)
        host = (parts.hostname or "").lower()
    except ValueError:
        raise InputError(f"link {shown} cannot be read: write https://youtube.com/watch?v=<11 characters>.") from None
    if parts.scheme in ("http", "https"):
        if not host:
            raise InputError(f"link {shown} names no server: write it whole.")
        if host in YOUTUBE_HOSTS | SHORT_HOSTS:
            clip_id = _youtube_id(host, parts.path, parts.query, shown)
            return Link("youtube", f"https://www.youtube.com/watch?v={clip_id}", clip_id)
        return Link("http", link, _derived_id(link))
    if parts.scheme == "file" and host in ("", "localhost"):
        return Link("file", unquote(parts.path), _derived_id(link))
    if parts.scheme:
        raise InputError(f"link {shown} has the scheme {parts.scheme!r}: give a web address or a file.")
    return Link("file", link, _derived_id(link))


def _youtube_id(host: str, path: str, query: str, shown: str) -> str:
    steps = [step for step in path.split("/") if step]
    if host in SHORT_HOSTS:
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


def film_of(title: str) -> str:
    """The film named in a clip's title, with its year where one is given; the whole title where no form fits."""
    title = " ".join(title.split())
    for form in TITLES:
        found = form.match(title)
        if found:
            year = found.groupdict().get("year")
            film = found["film"].strip()
            return f"{film} ({year})" if year else film
    return title
