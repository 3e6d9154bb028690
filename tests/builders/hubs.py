"""A hub on loopback: the API that huggingface_hub asks for one dataset at one commit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from builders.servers import LoopbackServer, SilentHandler, running

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(LoopbackServer):
    """`files` by name; `refusal`: a status, an error code and a message for every request; `asked`: paths of all."""

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        super().__init__(_Handler)
        self.name, self.files = name, dict(files)
        self.refusal: tuple[int, str, str] | None = None
        self.asked: list[str] = []


class _Handler(SilentHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub = self.server
        path = unquote(urlsplit(self.path).path)
        hub.asked.append(path)
        if hub.refusal:
            status, code, message = hub.refusal
            self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})
        elif f"/{COMMIT}" not in path:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path == f"/api/datasets/{hub.name}/tree/{COMMIT}":
            self._json([self._entry(name) for name in sorted(hub.files)])
        elif path == f"/api/datasets/{hub.name}/revision/{COMMIT}":
            self._json({"id": hub.name, "sha": COMMIT, "siblings": [{"rfilename": name} for name in sorted(hub.files)]})
        else:
            name = path.partition(f"/resolve/{COMMIT}/")[2]
            if name not in hub.files:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            etag = hashlib.sha256(hub.files[name]).hexdigest()
            self._send(200, hub.files[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    do_HEAD = do_GET

    def _entry(self, name: str) -> dict[str, Any]:
        content = self.server.files[name]
        return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def serving_hub(name: str, files: Mapping[str, bytes]) -> Iterator[Hub]:
    with running(Hub(name, files)) as hub:
        yield hub
