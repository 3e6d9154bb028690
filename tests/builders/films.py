"""A film with a track of subtitles."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from av.subtitles.subtitle import SubtitleSet


def write_film(path: Path, seconds: int, words: dict[float, str]) -> None:
    """A film of a grey that grows by one each second, with a track of subtitles of one second each."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=8)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        track = container.add_stream("mov_text" if path.suffix == ".mp4" else "subrip") if words else None
        if track:
            header = b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname\r\n"
            track.codec_context.subtitle_header = header + b"Style: Default,Arial\r\n\r\n[Events]\r\n"
            unit = 1000 if path.suffix == ".mkv" else 1_000_000
        for number in range(8 * seconds):
            picture = np.full((64, 64, 3), 10 * (number // 8), np.uint8)
            for packet in pictures.encode(av.VideoFrame.from_ndarray(picture)):
                container.mux(packet)
        for at, line in words.items():
            shown = SubtitleSet.create(f"0,0,Default,,0,0,0,,{line}".encode(), 0, unit, int(at * unit))
            packet = track.codec_context.encode_subtitle(shown)
            packet.stream = track
            container.mux(packet)
        for packet in pictures.encode(None):
            container.mux(packet)
