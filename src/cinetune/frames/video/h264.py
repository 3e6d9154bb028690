"""What the packets of an H.264 stream say without being decoded."""

from __future__ import annotations

from collections.abc import Iterator

SLICE, SLICE_PARTITION, IDR_SLICE = 1, 2, 5
INTRA_SLICE_TYPES = (2, 4)


def is_intra(packet: memoryview, extradata: bytes | None) -> bool:
    """Whether a packet's picture is built on no other, so that decoding can begin with it.

    A keyframe that is none only begins a gradual refresh, and the picture is whole one refresh later at the earliest:
    encoders let what is refreshed lean on what is not.
    """
    kinds = set()
    for unit in _units(packet, extradata or b""):
        kind = unit[0] & 31
        if kind == IDR_SLICE:
            return True
        if kind in (SLICE, SLICE_PARTITION):
            kinds.add(_slice_type(unit) % 5)
    return bool(kinds) and kinds <= set(INTRA_SLICE_TYPES)


def _units(packet: memoryview, extradata: bytes) -> Iterator[memoryview]:
    """The NAL units: behind their lengths as MP4 and Matroska keep them, or behind start codes."""
    if len(extradata) < 7 or extradata[0] != 1:
        yield from (memoryview(unit) for unit in bytes(packet).split(b"\0\0\1")[1:] if unit)
        return
    width, at = (extradata[4] & 3) + 1, 0
    while at + width < len(packet):
        end = at + width + int.from_bytes(packet[at : at + width], "big")
        if end > at + width:
            yield packet[at + width : end]
        at = end


def _slice_type(unit: memoryview) -> int:
    """The second Exp-Golomb number of a slice's header, behind the number of its first macroblock."""
    bits = f"{int.from_bytes(bytes(unit[1:17]).ljust(16, bytes(1)), 'big'):0128b}1"
    at = number = 0
    for _ in range(2):
        zeros = bits.index("1", at) - at
        number = int(bits[at + zeros : at + 2 * zeros + 1], 2) - 1
        at += 2 * zeros + 1
    return number
