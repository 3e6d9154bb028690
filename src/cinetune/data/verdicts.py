"""Which failures are final: not by what an error says, but by whether other clips still come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from cinetune.data.intake import ClipRequest
from cinetune.data.manifest import ClipRecord, Manifest
from cinetune.errors import InputError

# Properties of a clip or of its file. Everything else is passing: the network, the server, the client.
FINAL = {"unavailable", "private", "geo_blocked", "age_restricted", "too_large", "too_long", "broken"}
FINAL |= {"not_a_video", "unreadable"}
# A file that is not there may be there next time, and looking costs nothing.
MISSING = "missing"


class Verdicts:
    """What is said of clips, and whether it is believed.

    A failure becomes final once a clip of the same server has come after it: until then the client or the server may
    be at fault, which says the same of every clip. `good` has by server one clip that is known to come.
    """

    def __init__(self, manifest: Manifest, good: dict[str, ClipRequest], max_in_a_row: int) -> None:
        self._manifest, self._good, self._max_in_a_row = manifest, good, max_in_a_row
        self._open: list[tuple[ClipRequest, ClipRecord]] = []
        self._in_a_row: list[tuple[ClipRequest, ClipRecord]] = []

    def add(self, clip: ClipRequest, record: ClipRecord) -> None:
        """What came of a clip that a server was asked for, in order."""
        if record.status == "ok":
            self._good[clip.link.server] = clip
            self._in_a_row.clear()
            self._settle(clip.link.server)
            return
        self._in_a_row.append((clip, record))
        if record.status in FINAL:
            self._open.append((clip, record))

    def check(self, still_comes: Callable[[ClipRequest], bool]) -> None:
        """Raises InputError where too many in a row have failed and no clip that came before comes any more."""
        if len(self._in_a_row) < self._max_in_a_row:
            return
        servers = {clip.link.server for clip, _ in self._in_a_row}
        if self._answering(servers, still_comes) != servers:
            _, last = self._in_a_row[-1]
            raise InputError(
                f"{len(self._in_a_row)} clips in a row failed, the last with {last.status!r} ({last.reason[:-1]}), so "
                "the server or the client is at fault: run it again later, it resumes from here, or raise "
                "download.stop_after."
            )
        self._in_a_row.clear()

    def conclude(self, still_comes: Callable[[ClipRequest], bool]) -> None:
        """What is still open at the end of a run becomes final where a clip that came before still comes."""
        self._answering({clip.link.server for clip, _ in self._open}, still_comes)

    def _answering(self, servers: Iterable[str], still_comes: Callable[[ClipRequest], bool]) -> set[str]:
        answering = {server for server in servers if server in self._good and still_comes(self._good[server])}
        for server in answering:
            self._settle(server)
        return answering

    def _settle(self, server: str) -> None:
        for clip, record in self._open:
            if clip.link.server == server:
                self._manifest.record(replace(record, settled=True))
        self._open = [(clip, record) for clip, record in self._open if clip.link.server != server]


def check_outcome(
    clips: Sequence[ClipRequest], needed: Iterable[ClipRequest], records: Mapping[str, ClipRecord]
) -> None:
    """Raises InputError where no clip is there, or none came of those that were missing and may still come."""
    asked = [records[clip.clip_id] for clip in needed]
    is_nothing = bool(clips) and all(records[clip.clip_id].status != "ok" for clip in clips)
    may_come = [record for record in asked if not record.settled and record.status != MISSING]
    is_in_vain = bool(may_come) and all(record.status != "ok" for record in asked)
    if is_nothing or is_in_vain:
        first = records[clips[0].clip_id] if is_nothing else may_come[0]
        count = len(clips) if is_nothing else len(asked)
        raise InputError(
            f"none of {count} clips came; the first, {first.clip_id}, ended as {first.status!r} ({first.reason[:-1]}): "
            "correct that, or run it again later."
        )
