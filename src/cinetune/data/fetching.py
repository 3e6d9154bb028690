"""Fetch one address into one file with yt-dlp, in a child process with limits on time and bytes.

The child is killed when a clip takes too long, whatever the server does, and is replaced. An address that is no
YouTube link is read as a plain file: no page is searched for videos, so nothing that it names is opened.
`python -m cinetune.data.fetching` is that child.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import signal
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cinetune import sandbox
from cinetune.data.links import Link
from cinetune.errors import InputError
from cinetune.sandbox import Child, read_message, write_message

MAX_REASON_CHARS = 200
# The smaller side of the picture; larger only where nothing smaller is offered.
HEIGHT = 360
DISK_IS_FULL = "disk_full"
# The program that asks is at fault, or what it asks with: never a property of the clip.
CLIENT_ERROR = "client_error"
# Errors that may be gone a moment later.
PASSING = {"rate_limited", "forbidden", "network", "timeout", "broken", "not_a_video"}
HTTP_STATUSES = {401: "forbidden", 403: "forbidden", 404: "unavailable", 410: "unavailable", 429: "rate_limited"}
HTTP_STATUSES |= {451: "geo_blocked"}
# What says that a video is gone where its address is a file, says that yt-dlp asks wrongly where it is a page.
PAGE_STATUSES = HTTP_STATUSES | {404: CLIENT_ERROR, 410: CLIENT_ERROR}
# What the site itself says of a video; what else goes wrong with reading its page is the client's error.
PHRASES = (
    (r"http error 5\d\d", "network"),
    (r"no space left on device", DISK_IS_FULL),
    (r"file too large|larger than max-filesize", "too_large"),
    (r"not a bot|try again later|too many requests|rate.?limit", "rate_limited"),
    (r"requested format|on this app|latest version", CLIENT_ERROR),
    (r"private video|video is private", "private"),
    (r"in your country|geo.?restrict|from your location", "geo_blocked"),
    (r"confirm your age|age.?restricted|inappropriate for some users", "age_restricted"),
    (r"members.only|join this channel|requires payment|premium", "private"),
    (r"live event|premieres in|is live", "unavailable"),
    (r"video (?:is )?(?:unavailable|not available)|(?:been|was) (?:removed|deleted)|removed by", "unavailable"),
    (r"no longer available|account .*(?:terminated|closed)|does not exist", "unavailable"),
)
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True)
class FetchLimits:
    """What one attempt may cost at most; `stall_s` without a byte end it too. `cookies` names a file or nothing."""

    timeout_s: float
    stall_s: float
    max_megabytes: int
    max_duration_s: float
    cookies: str


@dataclass(frozen=True)
class FetchResult:
    """`ok`, or why not in one word and in one sentence.

    wait_s: the server's Retry-After; duration_s: how long the clip is as its source announces it, where it does.
    """

    status: str
    reason: str = ""
    wait_s: float = 0.0
    duration_s: float | None = None


# ---- inside the child


class _Refused(Exception):
    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Listener:
    """Keeps the first warning, which often says why there is an error afterwards."""

    warned = ""

    def debug(self, message: str) -> None:
        pass

    info = error = debug

    def warning(self, message: str) -> None:
        self.warned = self.warned or message


def _options(path: str, limits: FetchLimits, cookies: str, listener: _Listener) -> dict[str, Any]:
    def refuse_length(info: dict[str, Any], *, incomplete: bool) -> None:
        if info.get("is_live") or info.get("live_status") == "is_upcoming":
            raise _Refused("unavailable", "is a live broadcast")
        duration_s = info.get("duration") or 0
        if duration_s > limits.max_duration_s:
            raise _Refused(
                "too_long",
                f"lasts {duration_s:.0f} s, above the limit of {limits.max_duration_s:g} s: raise "
                "download.max_duration_s",
            )

    return {
        # Only the picture is looked at: without sound half the bytes, and nothing to join afterwards.
        "format": "bv*[protocol^=http]/b[protocol^=http]",
        "format_sort": [f"res:{HEIGHT}", "vcodec:h264", "ext:mp4"],
        "outtmpl": {"default": path.replace("%", "%%")},
        # An attempt starts over: the rest of a file that has changed meanwhile does not fit what is there.
        "continuedl": False, "nopart": True, "overwrites": True, "updatetime": False, "fixup": "never",
        "retries": 0, "fragment_retries": 0, "extractor_retries": 0, "skip_unavailable_fragments": False,
        "socket_timeout": limits.stall_s, "max_filesize": limits.max_megabytes * 10**6,
        "noplaylist": True, "playlist_items": "1", "allowed_extractors": ["youtube"], "geo_bypass": False,
        "cachedir": False, "match_filter": refuse_length, "cookiefile": io.StringIO(cookies) if cookies else None,
        "logger": listener, "quiet": True, "noprogress": True,
    }  # fmt: skip


def _fetch(request: dict[str, Any], limits: FetchLimits, cookies: str) -> FetchResult:
    import yt_dlp
    from yt_dlp.utils import YoutubeDLError

    path, address = request["path"], request["url"]
    is_page = request["kind"] == "youtube"
    listener = _Listener()
    try:
        with yt_dlp.YoutubeDL(_options(path, limits, cookies, listener)) as downloader:
            if is_page:
                info = downloader.extract_info(address)
            else:
                plain = {"id": "clip", "title": "clip", "ext": "mp4", "url": address, "webpage_url": address}
                info = downloader.process_ie_result(plain | {"extractor": "direct", "extractor_key": "Direct"})
    except _Refused as refused:
        return FetchResult(refused.status, f"{refused}.")
    except (YoutubeDLError, OSError, ValueError) as error:
        return _explain(error, is_page, listener.warned)
    size = Path(path).stat().st_size if Path(path).exists() else 0
    # yt-dlp says it is done also where it has only decided not to begin.
    if size == 0:
        return FetchResult(
            "too_large", f"is above the limit of {limits.max_megabytes} MB: raise download.max_megabytes."
        )
    return FetchResult("ok", duration_s=(info or {}).get("duration"))


def _explain(error: BaseException, is_page: bool = True, warned: str = "") -> FetchResult:
    """A status for what went wrong, from the innermost error that knows one."""
    from yt_dlp.networking.exceptions import HTTPError, TransportError
    from yt_dlp.utils import ContentTooShortError, ExtractorError, GeoRestrictedError

    text = _without_addresses(str(error))
    is_read = is_page and any(isinstance(cause, ExtractorError) for cause in _causes(error))
    usual = CLIENT_ERROR if is_read else "network"
    status = next((status for phrase, status in PHRASES if re.search(phrase, text, re.I)), usual)
    reason = re.sub(r"^(ERROR: )?(\[[\w:]+\] )?([\w-]{11}: )?", "", text)
    if status == CLIENT_ERROR and warned:
        reason = f"{reason[: MAX_REASON_CHARS // 2].rstrip('.')}, after the warning: {_without_addresses(warned)}"
    reason = reason[:MAX_REASON_CHARS].rstrip(".") + "."
    for cause in _causes(error):
        if isinstance(cause, GeoRestrictedError):
            return FetchResult("geo_blocked", reason)
        if isinstance(cause, HTTPError):
            asked = cause.response.headers.get("Retry-After") or ""
            said = (PAGE_STATUSES if is_page else HTTP_STATUSES).get(cause.status, "network")
            return FetchResult(said, f"the server answered {cause.status}.", float(asked) if asked.isdecimal() else 0.0)
        is_network = isinstance(cause, TransportError | ContentTooShortError | OSError)
        if is_network and status not in (DISK_IS_FULL, "too_large"):
            return FetchResult("network", reason)
    return FetchResult(status, reason)


def _without_addresses(text: str) -> str:
    return re.sub(r"https?://\S+", "<address>", " ".join(text.split()))


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        wrapped = getattr(error, "exc_info", None)
        error = getattr(error, "cause", None) or (wrapped and wrapped[1]) or error.__cause__ or error.__context__
    return found


def main(argv: list[str]) -> None:
    settings, requests, replies = sandbox.enter(argv)
    # A write beyond the limit is then an error to report, not the end of the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = FetchLimits(**settings)
    cookies = Path(limits.cookies).read_text(encoding="utf-8") if limits.cookies else ""
    sandbox.limit(max_file_bytes=limits.max_megabytes * 10**6)
    import yt_dlp  # noqa: F401  (loaded before the first clip's time runs)

    write_message(replies, {"ready": True})
    while (request := read_message(requests)) is not None:
        write_message(replies, asdict(_fetch(request, limits, cookies)))


# ---- the parent


def missing_parts() -> list[str]:
    """What yt-dlp needs to solve YouTube's challenges and is not installed."""
    deno = Path(sysconfig.get_path("scripts")) / "deno"
    missing = [] if importlib.util.find_spec("yt_dlp_ejs") else ["yt-dlp-ejs"]
    return missing + ([] if deno.is_file() or shutil.which("deno") else ["deno"])


class Fetcher:
    """A child process that fetches one clip after another. One call at a time; use as a context manager."""

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self._child: Child | None = None
        self._is_closed = False

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, also while another thread waits for it."""
        self._is_closed = True
        child = self._child
        if child is not None:
            child.kill()
            child.wait()

    def fetch(self, link: Link, path: Path) -> FetchResult:
        """One attempt; on `ok` the file is at `path`, which is otherwise to be thrown away."""
        stopped = FetchResult("network", "was not fetched: the download was stopped.")
        if self._is_closed:
            return stopped
        child = self._running()
        with child.killed_after(self._limits.timeout_s):
            child.send({"kind": link.kind, "url": link.url, "path": str(path.absolute())})
            answer = read_message(child.replies)
        if answer is not None:
            return FetchResult(**answer)
        self._discard()
        if self._is_closed:
            return stopped
        return FetchResult("timeout", f"took more than {self._limits.timeout_s:g} s: raise download.timeout_s.")

    def _running(self) -> Child:
        if self._child is not None and self._child.is_running:
            return self._child
        self._discard()
        network = {name: value for name, value in os.environ.items() if name.lower() in PROXIES or name in CERTIFICATES}
        self._child = child = Child("cinetune.data.fetching", asdict(self._limits), network)
        if not child.is_ready() and not self._is_closed:
            self._discard()
            raise InputError("yt-dlp did not start: install the project's environment again.")
        return child

    def _discard(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()


if __name__ == "__main__":
    main(sys.argv[1:])
