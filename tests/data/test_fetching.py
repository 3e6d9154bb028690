"""What yt-dlp says becomes a status."""

from __future__ import annotations

import importlib.util
import io
import sysconfig
from pathlib import Path

import pytest

from cinetune.data import fetching

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("ERROR: [youtube] -aB3_xyz-09: Private video. Sign in if you've been granted access", "private"),
        ("ERROR: [youtube] -aB3_xyz-09: Video unavailable. This video is not available", "unavailable"),
        ("ERROR: [youtube] x: Video unavailable. Not made available in your country", "geo_blocked"),
        ("ERROR: [youtube] x: Sign in to confirm you’re not a bot. Use --cookies", "rate_limited"),
        ("ERROR: [youtube] x: Sign in to confirm your age. This video may be inappropriate", "age_restricted"),
        ("ERROR: [youtube] x: This video has been removed by the uploader", "unavailable"),
        ("ERROR: [youtube] x: Video unavailable. This content isn't available, try again later", "rate_limited"),
        ("ERROR: [youtube] x: Join this channel to get access to members-only content", "private"),
        ("ERROR: unable to write data: [Errno 28] No space left on device", fetching.DISK_IS_FULL),
        ("ERROR: [youtube] x: see https://example.org/?key=SECRET for it", "network"),
        ("ERROR: [youtube] x: Requested format is not available. Use --list-formats", fetching.CLIENT_ERROR),
        ("ERROR: [youtube] x: The following content is not available on this app.. Watch on", fetching.CLIENT_ERROR),
        ("ERROR: [youtube] x: Video unavailable. Watch on the latest version of YouTube.", fetching.CLIENT_ERROR),
    ],
)  # fmt: skip
def test_what_yt_dlp_says_becomes_a_status_without_addresses(message: str, status: str) -> None:
    from yt_dlp.utils import DownloadError

    found = fetching._explain(DownloadError(message))
    assert found.status == status and "SECRET" not in found.reason and not found.reason.startswith("ERROR")


@pytest.mark.parametrize("message", ["Failed to extract any player response", "Words that nobody has seen yet"])
def test_what_goes_wrong_with_reading_a_page_is_no_property_of_the_clip(message: str) -> None:
    from yt_dlp.utils import DownloadError, ExtractorError

    inner = ExtractorError(message, expected=True)
    found = fetching._explain(
        DownloadError(f"ERROR: {inner}", (type(inner), inner, None)), warned="no JavaScript runtime"
    )
    assert found.status == fetching.CLIENT_ERROR and "no JavaScript runtime" in found.reason


@pytest.mark.parametrize("status", [404, 410])
def test_a_page_that_is_not_found_says_nothing_of_the_video(status: int) -> None:
    from yt_dlp.networking import Response
    from yt_dlp.networking.exceptions import HTTPError
    from yt_dlp.utils import DownloadError

    inner = HTTPError(Response(io.BytesIO(), "https://example.org", {}, status=status))
    error = DownloadError("ERROR: not found", (type(inner), inner, None))
    assert fetching._explain(error, is_page=True).status == fetching.CLIENT_ERROR
    assert fetching._explain(error, is_page=False).status == "unavailable"


def test_what_yt_dlp_needs_beside_itself_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert fetching.missing_parts() == ["yt-dlp-ejs", "deno"]
    (tmp_path / "deno").touch(mode=0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert fetching.missing_parts() == []
