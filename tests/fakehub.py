"""A stand-in for the hub: as much of its HTTP interface as models and datasets need, over files in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Repo:
    """A repository: its commits, the newest last."""

    commits: dict[str, Files] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: Files) -> str:
        """Add a commit on top of what is there, and return its digest."""
        whole = {**(next(reversed(self.commits.values())) if self.commits else {}), **files}
        digest = hashlib.sha1(repr(sorted(whole.items())).encode() + bytes([len(self.commits)])).hexdigest()
        self.commits[digest] = whole
        return digest

    def resolve(self, revision: str) -> str | None:
        """The commit that a revision stands for."""
        return (
            next(reversed(self.commits), None) if revision == "main" else revision if revision in self.commits else None
        )


class Hub:
    """All repositories by `models/NAME` and `datasets/NAME`. `short` cuts files when they are sent."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[str] = []
        self.short = False


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: Any) -> None:
        """Keep quiet."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def say(self, content: Any) -> None:
        self.answer(200, json.dumps(content).encode())

    def refuse(self, status: int, code: str) -> None:
        body = json.dumps({"error": code}).encode()
        self.answer(status, body, X_Error_Code=code, X_Error_Message=code)

    def found(self, kind: str, name: str, revision: str) -> tuple[str, Files] | None:
        """The commit and its files, or None where a refusal was sent."""
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None:
            self.refuse(401, "RepoNotFound")
        elif (commit := repo.resolve(revision)) is None:
            self.refuse(404, "RevisionNotFound")
        elif repo.gated and "/resolve/" in self.path:
            self.refuse(403, "GatedRepo")
        else:
            return commit, repo.commits[commit]
        return None

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.info(match[1], match[2], match[3] or "main")
        elif match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
            self.tree(match[1], match[2], match[3], match[4])
        elif match := re.fullmatch(r"(/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.file("datasets" if match[1] else "models", match[2], match[3], match[4])
        else:
            self.refuse(404, "EntryNotFound")

    do_HEAD = do_GET

    def info(self, kind: str, name: str, revision: str) -> None:
        if found := self.found(kind, name, revision):
            commit, files = found
            siblings = [{"rfilename": path, "size": len(data), "blobId": "b"} for path, data in files.items()]
            gated = self.hub.repos[f"{kind}/{name}"].gated
            more = {"private": False, "gated": "auto" if gated else False, "tags": [], "downloads": 0, "likes": 0}
            self.say({"id": name, "modelId": name, "sha": commit, "siblings": siblings, **more})

    def tree(self, kind: str, name: str, revision: str, below: str) -> None:
        if found := self.found(kind, name, revision):
            files = {path: data for path, data in found[1].items() if path.startswith(f"{below}/" if below else "")}
            entries = [{"type": "file", "path": path, "size": len(data), "oid": "b"} for path, data in files.items()]
            folders = {path.rpartition("/")[0] for path in files if "/" in path} - {below}
            self.say([*entries, *({"type": "directory", "path": path, "oid": "d"} for path in folders)])

    def file(self, kind: str, name: str, revision: str, path: str) -> None:
        if not (found := self.found(kind, name, revision)):
            return
        commit, files = found
        if path not in files:
            self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        data = files[path][:-1] if self.hub.short else files[path]
        tag = hashlib.sha1(data).hexdigest()
        begin, status = 0, 200
        headers = {"ETag": f'"{tag}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if asked := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            begin, end = int(asked[1]), int(asked[2] or len(data) - 1) + 1
            headers["Content_Range"] = f"bytes {begin}-{min(end, len(data)) - 1}/{len(data)}"
            data, status = data[begin:end], 206
        self.answer(status, data, Content_Type="application/octet-stream", **headers)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"POST {path}")
        body = self.read_body()
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
            self.hub.repos.setdefault(f"models/{name}", Repo())
            self.say({"url": f"http://{self.headers['Host']}/{name}", "id": name})
        elif path == "/api/validate-yaml":
            self.say({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [file["path"] for file in json.loads(body)["files"]]
            self.say({"files": [{"path": file, "uploadMode": "regular", "shouldIgnore": False} for file in files]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            lines = [json.loads(line) for line in body.splitlines() if line]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            commit = self.hub.repos[f"models/{match[1]}"].commit(files)
            self.say({"success": True, "commitOid": commit, "commitUrl": f"http://{self.headers['Host']}/c/{commit}"})
        elif match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/paths-info/(.+)", path):
            if found := self.found(match[1], match[2], match[3]):
                wanted = json.loads(body)["paths"] if body.startswith(b"{") else []
                paths = [path for path in found[1] if path in wanted]
                self.say([{"type": "file", "path": p, "size": len(found[1][p]), "oid": "b"} for p in paths])
        else:
            self.refuse(404, "EntryNotFound")

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole


@contextmanager
def hub_at() -> Iterator[tuple[Hub, str]]:
    """A hub and its address, as long as it runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
