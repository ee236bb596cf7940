"""A Hub small enough for a test: the requests that huggingface_hub makes to push and pull, answered over HTTP.

As on the real one, safetensors are large files (uploaded by their SHA-256 and fetched by a redirect), everything else
travels in commits; only those who show the token may write; and what is wrong is said in X-Error-Code.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_test"


class QuietServer(ThreadingHTTPServer):
    """A client that leaves early is no error, and what another test reads of stderr not the place to say so."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Hub:
    """What the server holds, and what tests change in it."""

    def __init__(self) -> None:
        self.url = ""
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}  # repository → branch → path → content
        self.commits: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.messages: list[str] = []
        self.stalled = threading.Event()  # set once half of a file was sent while `stall` is
        self.stall = False

    def commit(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        """A new state of a branch."""
        sha = hashlib.sha1(f"{repo} {branch} {len(self.commits)}".encode()).hexdigest()
        self.repos.setdefault(repo, {})[branch] = self.commits[sha] = files
        return sha

    def state(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a branch or commit."""
        files = self.repos[repo].get(revision, self.commits.get(revision))
        return next(((sha, there) for sha, there in self.commits.items() if there is files), None)


class Handler(BaseHTTPRequestHandler):
    """One request; ``hub`` is set by :func:`serve`."""

    hub: Hub

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def answer(self, body: object = b"", status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            if self.hub.stall and len(data) > 100_000:
                self.wfile.write(data[: len(data) // 2])
                self.hub.stalled.set()
                threading.Event().wait(60)
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(data)

    def known(self, repo: str, revision: str = "main") -> tuple[str, dict[str, bytes]] | None:
        """The state that is asked for, or None once it was answered that there is none."""
        if repo not in self.hub.repos or (self.hub.private.get(repo) and not self.trusted()):
            self.answer({"error": "Repository not found"}, 404 if self.trusted() else 401, X_Error_Code="RepoNotFound")
            return None
        state = self.hub.state(repo, revision)
        if state is None:
            self.answer({"error": f"Invalid rev id: {revision}"}, 404, X_Error_Code="RevisionNotFound")
        return state

    def trusted(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def path_parts(self) -> list[str]:
        return [urllib.parse.unquote(part) for part in self.path.partition("?")[0].strip("/").split("/")]

    def do_GET(self) -> None:
        """Repository, file, or the content of a large file."""
        match self.path_parts():
            case ["api", "models", user, name, *revision]:
                state = self.known(f"{user}/{name}", *revision[1:])
                if state:
                    private = self.hub.private.get(f"{user}/{name}", False)
                    files = [sibling(path, data) for path, data in state[1].items()]
                    self.answer({"id": f"{user}/{name}", "sha": state[0], "private": private, "siblings": files})
            case [user, name, "resolve", revision, *path]:
                state = self.known(f"{user}/{name}", revision)
                if state:
                    self.file(state[0], "/".join(path), state[1])
            case ["large", oid]:
                self.hub.fetched.append(self.path.partition("?")[2])
                self.answer(self.hub.large[oid])
            case _:
                self.answer({"error": "no such route"}, 404)

    do_HEAD = do_GET

    def file(self, sha: str, path: str, files: dict[str, bytes]) -> None:
        if path not in files:
            self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
            return
        data = files[path]
        if not path.endswith(".safetensors"):
            if self.command == "GET":
                self.hub.fetched.append(path)
            self.answer(data, ETag=f'"{git_hash(data)}"', X_Repo_Commit=sha)
            return
        oid = hashlib.sha256(data).hexdigest()
        self.hub.large[oid] = data
        # Elsewhere, as on the real Hub: a redirect within the Hub would be followed for what is known of the file.
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
        there = {"Location": f"{elsewhere}/large/{oid}?{path}", "X_Linked_Etag": f'"{oid}"'}
        self.answer(b"", 302, X_Repo_Commit=sha, X_Linked_Size=str(len(data)), **there)

    def do_POST(self) -> None:
        """Whatever writes."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.trusted():
            self.answer({"error": "Invalid username or password."}, 401)
            return
        match self.path_parts():
            case ["api", "repos", "create"]:
                wanted = json.loads(body)
                repo = f"{wanted['organization']}/{wanted['name']}"
                if repo in self.hub.repos:
                    said = {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"}
                    self.answer(said, 409)
                    return
                self.hub.private[repo] = wanted.get("visibility") == "private"
                self.hub.commit(repo, "main", {".gitattributes": b"*.safetensors filter=lfs\n"})
                self.answer({"url": f"{self.hub.url}/{repo}"})
            case ["api", "models", user, name, "branch", branch]:
                if branch in self.hub.repos[f"{user}/{name}"]:
                    self.answer({"error": f"Reference already exists: refs/heads/{branch}"}, 409)
                    return
                self.hub.commit(f"{user}/{name}", branch, dict(self.hub.repos[f"{user}/{name}"]["main"]))
                self.answer()
            case ["api", "models", user, name, "preupload", revision]:
                state = self.known(f"{user}/{name}", revision)
                if state:
                    paths = [file["path"] for file in json.loads(body)["files"]]
                    modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
                    files = [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]
                    self.answer({"files": files})
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = [
                    {**entry, "actions": {"upload": {"href": f"{self.hub.url}/large/{entry['oid']}"}}}
                    for entry in json.loads(body)["objects"]
                ]
                self.answer({"objects": objects, "transfer": "basic"})
            case ["api", "models", user, name, "commit", revision]:
                state = self.known(f"{user}/{name}", revision)
                if state:
                    lines = [json.loads(line) for line in body.splitlines()]
                    sha = self.hub.commit(f"{user}/{name}", revision, self.applied(lines, dict(state[1])))
                    self.answer({"commitUrl": f"{self.hub.url}/{user}/{name}/commit/{sha}", "commitOid": sha})
            case _:
                self.answer({"error": "no such route"}, 404)

    def applied(self, lines: list[dict], files: dict[str, bytes]) -> dict[str, bytes]:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            else:
                assert line["key"] == "deletedFile"
                del files[value["path"]]
        return files

    def do_PUT(self) -> None:
        """The content of a large file; whoever has the address may write it."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.large[self.path_parts()[1]] = data
        self.answer()


def sibling(path: str, data: bytes) -> dict:
    """A file as it is listed: by its name in git, or its SHA-256 if it is large."""
    entry: dict = {"rfilename": path, "size": len(data), "blobId": git_hash(data)}
    if path.endswith(".safetensors"):
        entry["blobId"] = git_hash(b"pointer")
        entry["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
    return entry


def git_hash(data: bytes) -> str:
    """How git names content."""
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """A Hub on a free port of this machine."""
    hub = Hub()
    server = QuietServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    server.block_on_close = False
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
