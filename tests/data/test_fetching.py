"""What yt-dlp says becomes a status."""

from __future__ import annotations

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
    ],
)  # fmt: skip
def test_what_yt_dlp_says_becomes_a_status_without_addresses(message: str, status: str) -> None:
    from yt_dlp.utils import DownloadError

    found = fetching._explain(DownloadError(message))
    assert found.status == status and "SECRET" not in found.reason and not found.reason.startswith("ERROR")
