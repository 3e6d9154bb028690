"""Hubs on loopback: the API that huggingface_hub asks for files at a commit, and that which takes a model."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from builders.servers import LoopbackServer, SilentHandler, running

COMMIT = "0123456789abcdef0123456789abcdef01234567"
API = re.compile(
    r"/api/(?P<repo>(datasets|models)/[^/]+/[^/]+)(/(?P<what>tree|revision)/(?P<revision>[^/]+)(/(?P<folder>.+))?)?"
)
FILE = re.compile(r"/(?P<repo>(datasets/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


class Hub(LoopbackServer):
    """`repos`: files by name, by `owner/name` or `datasets/owner/name`; each has one commit, its branch main.

    commits: by repository, where it is not COMMIT; refusal: a status, an error code and a message for every request;
    token: without it datasets are gated; asked: paths of all requests.
    """

    def __init__(self, repos: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__(_Handler)
        self.repos = {name: dict(files) for name, files in repos.items()}
        self.commits: dict[str, str] = {}
        self.refusal: tuple[int, str, str] | None = None
        self.token = ""
        self.asked: list[str] = []


class _Handler(SilentHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub = self.server
        path = unquote(urlsplit(self.path).path)
        hub.asked.append(path)
        found = API.fullmatch(path) or FILE.fullmatch(path)
        repo = found["repo"].removeprefix("models/") if found else ""
        commit = hub.commits.get(repo, COMMIT)
        if hub.refusal:
            self._refuse(*hub.refusal)
        elif found is None or repo not in hub.repos:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif repo.startswith("datasets/") and hub.token and self.headers["Authorization"] != f"Bearer {hub.token}":
            self._refuse(401, "GatedRepo", "Access is restricted. Please log in.")
        elif found["revision"] not in (commit, "main", None):
            self._refuse(404, "RevisionNotFound", "")
        elif found.re is FILE:
            self._file(hub.repos[repo].get(found["name"]), commit)
        elif found["what"] == "tree":
            folder = f"{found['folder']}/" if found["folder"] else ""
            files = {name: content for name, content in hub.repos[repo].items() if name.startswith(folder)}
            if files:
                self._json([_entry(name, content) for name, content in sorted(files.items())])
            else:
                self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            self._json(
                {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in sorted(hub.repos[repo])]}
            )

    do_HEAD = do_GET

    def _file(self, content: bytes | None, commit: str) -> None:
        if content is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            etag = hashlib.sha256(content).hexdigest()
            self._send(200, content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

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


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}


@contextmanager
def serving_hub(repos: Mapping[str, Mapping[str, bytes]]) -> Iterator[Hub]:
    with running(Hub(repos)) as hub:
        yield hub


class Shelf(LoopbackServer):
    """Takes models: `files` by name; `repositories`: with what each was made; `tokens`: that came along."""

    def __init__(self) -> None:
        super().__init__(_ShelfHandler)
        self.files: dict[str, bytes] = {}
        self.repositories: dict[str, dict[str, Any]] = {}
        self.tokens: set[str] = set()
        self.refusal = 0
        self.blobs: dict[str, bytes] = {}


class _ShelfHandler(SilentHandler):
    """The hub's Git LFS way, which huggingface_hub takes where hf_xet is not used."""

    server: Shelf
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        shelf = self.server
        entries = [_entry(name, content) for name, content in sorted(shelf.files.items())]
        path = urlsplit(self.path).path
        siblings = [{"rfilename": entry["path"]} for entry in entries]
        self._reply(entries if "/tree/" in path else {"id": "model", "sha": COMMIT, "siblings": siblings})

    def do_PUT(self) -> None:
        self.server.blobs[self.path.rpartition("/")[2]] = self._body()
        self._reply({})

    def do_POST(self) -> None:
        shelf, path, body = self.server, urlsplit(self.path).path, self._body()
        shelf.tokens.add(self.headers.get("Authorization", ""))
        if shelf.refusal:
            self._reply({"error": "no"}, shelf.refusal)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            shelf.repositories[f"{asked.get('organization')}/{asked['name']}"] = asked
            self._reply({"url": f"{shelf.root}/{asked.get('organization')}/{asked['name']}"})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {True: "lfs", False: "regular"}
            files = [
                {"path": name, "uploadMode": modes[name.endswith(".safetensors")], "shouldIgnore": False}
                for name in names
            ]
            self._reply({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{shelf.root}/blobs/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]
            ]
            self._reply({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            for line in body.decode().splitlines():
                self._take(json.loads(line))
            repo = path.removeprefix("/api/models/").partition("/commit/")[0]
            self._reply({"success": True, "commitOid": COMMIT, "commitUrl": f"{shelf.root}/{repo}/commit/{COMMIT}"})
        else:
            self._reply({"errors": [], "warnings": []})

    def _take(self, entry: Mapping[str, Any]) -> None:
        value, files = entry["value"], self.server.files
        if entry["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            files[value["path"]] = self.server.blobs[value["oid"]]
        elif entry["key"] == "deletedFile":
            del files[value["path"]]

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _reply(self, content: Any, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
