"""Videos and images behind http(s) links, from hosts that were allowed by name and from nowhere else.

A name that resolves to an address inside the network is refused, the connection goes to the address that was
checked, and each redirect is judged like the link itself.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from urllib.parse import SplitResult, urljoin, urlsplit

from cinetune.errors import InputError

MAX_REDIRECTS = 3
READ_BYTES = 1 << 16
WANTED = "video/*, image/*, application/octet-stream"


def fetch(url: str, hosts: Sequence[str], max_bytes: int, timeout_s: float) -> bytes:
    """The body of a link. `hosts` are names, or addresses which are then allowed as they stand.

    Raises InputError for another host, too many redirects or bytes, and what cannot be fetched in time.
    """
    until = time.monotonic() + timeout_s
    for _ in range(MAX_REDIRECTS + 1):
        host, parts = _parse(url, hosts)
        try:
            answer = _get(host, parts, until)
            if answer.status not in (301, 302, 303, 307, 308):
                return _read(answer, host, max_bytes, until)
            url = urljoin(url, answer.headers.get("Location", ""))
        except (OSError, http.client.HTTPException) as error:
            reason = "it took too long" if isinstance(error, TimeoutError) else type(error).__name__
            raise InputError(f"link to host {host!r} cannot be fetched: {reason}") from None
    raise InputError(f"link leads through more than {MAX_REDIRECTS} redirects: name its end")


def _parse(url: str, hosts: Sequence[str]) -> tuple[str, SplitResult]:
    unusable = InputError("link cannot be read: write http(s)://host/path")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise unusable from None
    # Control signs would become part of the request itself.
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or not url.isprintable():
        raise unusable
    if parts.hostname not in hosts:
        raise InputError(f"nothing is fetched from host {parts.hostname[:80]!r}: send the file itself as base64")
    return parts.hostname, parts


def _get(host: str, parts: SplitResult, until: float) -> http.client.HTTPResponse:
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _checked_address(host, port)
    connection = http.client.HTTPConnection(host, port)
    connection.sock = socket.create_connection((address, port), timeout=_left(until))
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", path, headers={"Accept": WANTED, "Connection": "close"})
    return connection.getresponse()


def _checked_address(host: str, port: int) -> str:
    """Where to connect: an address that was allowed itself, or one outside the network for a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        found = [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        if not all(ipaddress.ip_address(address).is_global for address in found):
            raise InputError(f"host {host!r} leads into this network: nothing is fetched from there") from None
        return str(found[0])
    return host


def _read(answer: http.client.HTTPResponse, host: str, max_bytes: int, until: float) -> bytes:
    if answer.status != 200:
        raise InputError(f"link to host {host!r} cannot be fetched: it answers {answer.status}")
    content = bytearray()
    while chunk := answer.read1(READ_BYTES):
        content += chunk
        if len(content) > max_bytes:
            raise InputError(f"link to host {host!r} is to a file above the limit of {max_bytes >> 20} MB")
        _left(until)
    # How much of what was announced is yet to come.
    if answer.length:
        raise InputError(f"link to host {host!r} cannot be fetched: the file ended early")
    return bytes(content)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
