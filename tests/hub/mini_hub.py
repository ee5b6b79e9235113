"""A stand-in for the hub on 127.0.0.1: the endpoints, headers and error codes that a client meets, and their faults.

It serves `root/{models,datasets}/<owner>/<name>/…`. Every state of a repository is a commit; `push` makes another. Large
files are not served by the hub itself: it redirects to a second server (`storage`), which must never see a token.

Faults are set while it runs, `hub.faults["<path as requested>"]` being one of the names in `FAULTS`; with " once" behind
it a fault is gone after it has happened.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet", ".gz", ".zst", ".model", ".jsonl")  # kept in LFS, listed with a sha256
PAGE = 40  # entries of a tree in one answer
FAULTS = ("500", "429", "expired", "truncated", "corrupt", "longer", "no ranges", "slow", "compressed")
Files = dict[str, bytes]


@dataclass
class Repository:
    """Its commits, and which of them the branch `main` is."""

    commits: dict[str, Files] = field(default_factory=dict)
    main: str = ""

    def push(self, files: Mapping[str, bytes]) -> str:
        content = dict(sorted(files.items()))
        self.main = hashlib.sha1(b"".join(k.encode() + b"\0" + v for k, v in content.items())).hexdigest()
        self.commits[self.main] = content
        return self.main

    @property
    def files(self) -> Files:
        return self.commits[self.main]

    def resolve(self, revision: str) -> str | None:
        return self.main if revision == "main" else revision if revision in self.commits else None


def listed(path: str, content: bytes) -> dict[str, Any]:
    """A file as the tree endpoint lists it."""
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


@dataclass(frozen=True)
class Request:
    server: str  # "hub" or "storage"
    path: str
    range: str | None
    authorization: str | None


class MiniHub:
    """with MiniHub(root) as hub: … os.environ | hub.env(home)."""

    def __init__(self, root: Path | None = None, *, token: str = "hf_secret") -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.token, self.gated, self.faults = token, set[str](), dict[str, str]()
        self.requests: list[Request] = []
        self.asks_for: dict[str, str] = {}  # headers of an answer 500 or 429
        self.link_host = ""  # what page links name instead of this server, as behind a mirror
        for kind in ("models", "datasets"):
            for folder in sorted((Path(root) / kind).glob("*/*")) if root is not None else ():
                files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
                self.push(kind, f"{folder.parent.name}/{folder.name}", files)
        self._servers = {name: _serve(self, name) for name in ("hub", "storage")}
        self.url, self.storage_url = (
            f"http://127.0.0.1:{self._servers[name].server_address[1]}" for name in ("hub", "storage")
        )

    def push(self, kind: str, name: str, files: Mapping[str, bytes]) -> str:
        """Make a commit of these files and let `main` point to it."""
        return self.repositories.setdefault((kind, name), Repository()).push(files)

    def commit(self, kind: str, name: str) -> str:
        return self.repositories[kind, name].main

    def env(self, home: Path) -> dict[str, str]:
        """What a process needs to talk to this hub and to nothing else."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def downloads(self) -> list[str]:
        """The names of the files that were asked of the hub, in order."""
        return [r.path.rpartition("/")[2] for r in self.requests if r.server == "hub" and "/resolve/" in r.path]

    def __enter__(self) -> MiniHub:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()


def _serve(hub: MiniHub, name: str) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.hub, server.role = hub, name  # type: ignore[attr-defined]
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub: MiniHub = self.server.hub  # type: ignore[attr-defined]
        role: str = self.server.role  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        path = unquote(url.path)
        headers = self.headers
        hub.requests.append(Request(role, path, headers.get("Range"), headers.get("Authorization")))
        fault = hub.faults.get(path, "").removesuffix(" once")
        if fault in ("500", "429"):
            self._happened(hub, path)
            return self._answer(int(fault), {"error": "come again"}, hub.asks_for)
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            return self._api(hub, parts[1], "/".join(parts[2:4]), parts[4:], url.query)
        kind = "datasets" if parts[0] == "datasets" else "models"
        parts = parts[1:] if kind == "datasets" else parts
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file(hub, role, kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]), path)
        return self._refuse(404, "NotFound")

    def _repository(self, hub: MiniHub, kind: str, name: str, revision: str, *, content: bool) -> Files | None:
        """The files of a revision, or None after an error has been answered. A gate closes the content, not the list."""
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {hub.token}", "Bearer hf_other"):
            self._refuse(401, "")
        elif (kind, name) not in hub.repositories:
            self._refuse(401 if given is None else 404, "RepoNotFound")
        elif content and name in hub.gated and given != f"Bearer {hub.token}":
            self._refuse(401 if given is None else 403, "GatedRepo")
        elif (commit := hub.repositories[kind, name].resolve(revision)) is None:
            self._refuse(404, "RevisionNotFound")
        else:
            return hub.repositories[kind, name].commits[commit]
        return None

    def _api(self, hub: MiniHub, kind: str, name: str, rest: list[str], query: str) -> None:
        revision = rest[1] if len(rest) > 1 else "main"
        files = self._repository(hub, kind, name, revision, content=False)
        if files is None:
            return
        if rest and rest[0] == "tree":
            first = int(query.rpartition("cursor=")[2] or 0) if "cursor=" in query else 0
            entries = [listed(path, content) for path, content in files.items()]
            folders = sorted({path.rpartition("/")[0] for path in files if "/" in path})
            entries += [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders]
            more = {}
            if first + PAGE < len(entries):
                host = hub.link_host or hub.url
                address = f"{host}/api/{kind}/{name}/tree/{revision}?recursive=true&cursor={first + PAGE}"
                more = {"Link": f'<{address}>; rel="next"'}
            return self._answer(200, entries[first : first + PAGE], more)
        commit = hub.repositories[kind, name].resolve(revision)
        return self._answer(200, {"id": name, "sha": commit, "gated": name in hub.gated})

    def _file(self, hub: MiniHub, role: str, kind: str, name: str, revision: str, file: str, path: str) -> None:
        if role == "storage":  # addresses there are signed: whoever has one may read
            commit = hub.repositories[kind, name].resolve(revision)
            files = hub.repositories[kind, name].commits[commit or ""]
        else:
            found = self._repository(hub, kind, name, revision, content=True)
            if found is None:
                return None
            files = found
        if file not in files:
            return self._refuse(404, "EntryNotFound")
        if role == "hub" and file.endswith(LARGE):
            return self._answer(302, {}, {"Location": f"{hub.storage_url}{self.path}?Signature=s1gned"})
        fault = hub.faults.get(path, "").removesuffix(" once")
        if fault == "expired":
            self._happened(hub, path)
            return self._answer(403, {"error": "the signature has expired"})
        return self._send(hub, path, files[file], fault)

    def _send(self, hub: MiniHub, path: str, content: bytes, fault: str) -> None:
        first, asked = 0, self.headers.get("Range")
        if asked is not None and fault != "no ranges":
            first = int(asked.removeprefix("bytes=").partition("-")[0])
        body = content[first:]
        if fault in ("corrupt", "longer"):
            body = body + b"x" * 3000 if fault == "longer" else bytes(byte ^ 0xFF for byte in body)
            self._happened(hub, path)
        compressed = "gzip" in self.headers.get("Accept-Encoding", "") and not path.endswith(LARGE)
        if compressed or fault == "compressed":  # as the hub's network does with text
            body = gzip.compress(body)
        self.send_response(206 if asked is not None and fault != "no ranges" else 200)
        if compressed or fault == "compressed":
            self.send_header("Content-Encoding", "gzip")
        if asked is not None and fault != "no ranges":
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if fault == "truncated":
            self._happened(hub, path)
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif fault == "slow":
            for i in range(0, len(body), 1 << 16):
                self.wfile.write(body[i : i + (1 << 16)])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(body)

    def _happened(self, hub: MiniHub, path: str) -> None:
        if hub.faults.get(path, "").endswith(" once"):
            hub.faults.pop(path, None)

    def _refuse(self, code: int, reason: str) -> None:
        self._answer(code, {"error": reason}, {"X-Error-Code": reason, "X-Error-Message": reason})

    def _answer(self, code: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
