"""Videos behind links."""

from __future__ import annotations

import http.server
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.servers import recording
from cinetune.serving import remote, sources

pytestmark = pytest.mark.serving


@pytest.fixture
def site() -> Iterator[tuple[int, list[str]]]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path.startswith("/to/"):
            request.send_response(302)
            request.send_header("Location", request.path.removeprefix("/to/"))
            request.end_headers()
        elif request.path == "/slow":
            request.send_response(200)
            request.end_headers()
            for _ in range(50):
                request.wfile.write(b"x")
                time.sleep(0.1)
        else:
            request.send_response(200 if request.path != "/gone" else 404)
            request.end_headers()
            request.wfile.write(b"x" * (int(request.path[1:]) if request.path[1:].isdigit() else 3))

    with recording(answer) as found:
        yield found


def test_a_link_is_followed_on_allowed_hosts_alone(site: tuple[int, list[str]]) -> None:
    port, hits = site
    base = f"http://127.0.0.1:{port}"

    def fetch(url: str, *hosts: str) -> bytes:
        return remote.fetch(url, hosts, 1000, 1.0)

    assert fetch(f"{base}/1000", "127.0.0.1") == b"x" * 1000
    assert fetch(f"{base}/to/{base}/5", "127.0.0.1") == b"x" * 5
    assert sources.read(f"{base}/7", Path("nowhere"), ["127.0.0.1"], 1.0) == b"x" * 7
    hits.clear()
    with pytest.raises(remote.InputError, match="paths and addresses are not opened"):
        sources.read(f"{base}/7", Path("nowhere"), [], 1.0)
    for url, hosts, words in (
        (f"{base}/5", ("example.org",), "nothing is fetched from host"),
        (f"http://localhost:{port}/5", ("localhost",), "leads into this network"),
        (f"http://user@127.0.0.1:{port}/5", ("127.0.0.1",), "cannot be read"),
        (f"ftp://127.0.0.1:{port}/5", ("127.0.0.1",), "cannot be read"),
        ("http://127.0.0.1:99999/5", ("127.0.0.1",), "cannot be read"),
        (f"{base}/5\r\nX: y", ("127.0.0.1",), "cannot be read"),
        ("http://[::1", ("127.0.0.1",), "cannot be read"),
    ):
        with pytest.raises(remote.InputError, match=words):
            fetch(url, *hosts)
    assert hits == []
    for path, words in (
        (f"/to/http://localhost:{port}/5", "nothing is fetched from host 'localhost'"),
        ("/to/file:///etc/passwd", "cannot be read"),
        ("/to//to//to//to//to/5", "redirects"),
        ("/1001", "above the limit"),
        ("/gone", "answers 404"),
        ("/slow", "took too long"),
    ):
        with pytest.raises(remote.InputError, match=words):
            fetch(f"{base}{path}", "127.0.0.1")
    assert "/5" not in hits
