"""A small hub on the loopback: repositories are folders by revision, and one token reads the private ones."""

import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_tokenofthehub_0123456789"
PRIVATE, GATED = "org/private", "org/gated"


@dataclass
class Hub:
    """The server: its address, its repositories by name and revision, and what it was asked."""

    url: str
    repositories: dict[str, dict[str, Path]]
    asked: list[str] = field(default_factory=list)  # paths, in order
    tokens: set[str] = field(default_factory=set)  # that came with the questions
    pushed: dict[str, dict[str, bytes]] = field(default_factory=dict)  # by repository and file


@contextmanager
def serving(repositories: dict[str, dict[str, Path]]) -> Iterator[Hub]:
    """Serve folders: `{"org/tiny": {"main": folder}}`."""
    hub = Hub("", repositories)

    class Answer(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET(body=False)

        def do_GET(self, body: bool = True) -> None:
            split = urlsplit(self.path)
            path = unquote(split.path)
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            hub.asked.append(self.path)
            hub.tokens.update([token] if token else [])
            handle = _modelscope if path.startswith("/api/v1/") else _hugging_face
            status, headers, content = handle(hub, path, parse_qs(split.query), token)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_POST(self) -> None:
            path = unquote(urlsplit(self.path).path)
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = _pushing(hub, path, body, token)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


Reply = tuple[int, dict[str, str], bytes]


def _error(status: int, code: str, message: str) -> Reply:
    body = json.dumps({"error": message}).encode()
    return (
        status,
        {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"},
        body,
    )


def _json(value: object) -> Reply:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def commit(name: str, revision: str) -> str:
    return sha1(f"{name}@{revision}".encode()).hexdigest()


def _hugging_face(hub: Hub, path: str, _: object, token: str) -> Reply:
    """/api/models/ORG/NAME/revision/REV, /api/models/ORG/NAME/tree/REV and /ORG/NAME/resolve/REV/FILE."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[:2] == ["api", "models"] else parts
    name, asked, rest = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "revision", parts[3:]
    if token and token != TOKEN:
        return _error(401, "", "Invalid credentials in Authorization header")
    if name not in hub.repositories or (name == PRIVATE and token != TOKEN):
        return _error(404 if token else 401, "RepoNotFound", "Repository not found")
    if name == GATED:
        return _error(403, "GatedRepo", "Access to model org/gated is restricted")
    revisions = hub.repositories[name]
    wanted = rest[0] if rest else "main"
    revision = next((r for r in revisions if wanted in (r, commit(name, r))), None)
    if revision is None:
        return _error(404, "RevisionNotFound", f"Invalid rev id: {wanted}")
    folder, sha = revisions[revision], commit(name, revision)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    if asked == "revision":
        siblings = [{"rfilename": file.name, **_of(file)} for file in files]
        return _json({"id": name, "modelId": name, "sha": sha, "private": False, "tags": [], "downloads": 0,
                      "siblings": siblings})  # fmt: skip
    if asked == "tree":
        return _json(
            [{"type": "file", "path": file.name, "oid": _of(file)["blobId"], **_of(file)} for file in files]
        )
    file = folder / "/".join(rest[1:])
    if not file.is_file():
        return _error(404, "EntryNotFound", "Entry not found")
    headers = {"ETag": f'"{_of(file)["blobId"]}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    return 200, headers, file.read_bytes()


def _pushing(hub: Hub, path: str, body: bytes, token: str) -> Reply:
    """/api/repos/create, and /api/models/ORG/NAME/preupload/REV and /commit/REV with files in the commit itself."""
    if token != TOKEN:
        return _error(401, "", "Invalid credentials in Authorization header")
    if path == "/api/validate-yaml":
        return _json({"errors": [], "warnings": []})
    if path == "/api/repos/create":
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        hub.pushed.setdefault(name, {})
        return _json({"url": f"{hub.url}/{name}", "id": name})
    name, asked_for = "/".join(path.split("/")[3:5]), path.split("/")[5]
    if asked_for == "preupload":
        modes = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]
        return _json({"files": modes})
    for line in map(json.loads, body.splitlines()):
        if line["key"] == "file":
            hub.pushed[name][line["value"]["path"]] = b64decode(line["value"]["content"])
    return _json(
        {"commitUrl": f"{hub.url}/{name}/commit/{commit(name, 'main')}", "commitOid": commit(name, "main")}
    )


def _of(file: Path) -> dict[str, object]:
    return {"size": file.stat().st_size, "blobId": sha1(file.read_bytes()).hexdigest()}


def _modelscope(hub: Hub, path: str, query: dict[str, list[str]], token: str) -> Reply:
    """/api/v1/models/ORG/NAME/repo/files?Revision=REV and /api/v1/models/ORG/NAME/repo?Revision=REV&FilePath=FILE."""
    parts = path.removeprefix("/api/v1/").split("/")
    name, asked = "/".join(parts[1:3]), "/".join(parts[3:])
    if name not in hub.repositories or (name == PRIVATE and token != TOKEN):
        status = 404 if name not in hub.repositories else 401
        return (
            status,
            {"Content-Type": "application/json"},
            json.dumps({"Code": status, "Success": False, "Message": "no such model"}).encode(),
        )
    revision = (query.get("Revision") or ["master"])[0]
    folder = hub.repositories[name].get({"master": "main"}.get(revision, revision))
    if asked == "revisions":
        known = [{"Revision": {"main": "master"}.get(r, r)} for r in hub.repositories[name]]
        return _json({"Code": 200, "Success": True, "Data": {"RevisionMap": {"Branches": known, "Tags": []}}})
    if folder is None:
        body = {"Code": 404, "Success": False, "Message": f"no revision {revision}"}
        return 404, {"Content-Type": "application/json"}, json.dumps(body).encode()
    if asked == "repo/files":
        files = [
            {"Name": file.name, "Path": file.name, "Type": "blob", "Size": file.stat().st_size, "Revision": revision,
             "Sha256": sha256(file.read_bytes()).hexdigest()}
            for file in sorted(folder.iterdir())
        ]  # fmt: skip
        return _json({"Code": 200, "Success": True, "Data": {"Files": files}})
    if asked == "repo" and "FilePath" in query:
        return 200, {"Content-Type": "application/octet-stream"}, (folder / query["FilePath"][0]).read_bytes()
    return _json({"Code": 200, "Success": True, "Data": {"Name": name}})
