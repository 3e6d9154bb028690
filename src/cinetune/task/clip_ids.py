"""The one rule for a clip's id: it becomes a file's name, from the download to the server."""

from __future__ import annotations

import re

# No separators, nothing hidden, no more than a file system takes.
_FORM = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", re.ASCII)


def check(clip_id: object) -> str | None:
    """Why it is no id, as the end of a sentence, or None."""
    if isinstance(clip_id, str) and _FORM.fullmatch(clip_id):
        return None
    shown = repr(clip_id if not isinstance(clip_id, str) or len(clip_id) <= 110 else clip_id[:107] + "...")
    return f"clip_id must be at most 100 letters, digits, -, _ and . with no . at its start, got {shown}"
