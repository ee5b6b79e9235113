"""A stand-in for the hub on 127.0.0.1: the endpoints, headers and error codes that a client meets, and its faults.

It serves `root/{models,datasets}/<owner>/<name>/…`, one commit each. Faults are set while it runs:
`hub.faults["<path as requested>"]` is one of "500", "truncated", "truncated once", "corrupt", "corrupt once", "slow".
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet", ".gz", ".zst", ".model", ".jsonl")  # kept in LFS, listed with a sha256
PAGE = 40  # entries of a tree in one answer


class Repository:
    def __init__(self, folder: Path) -> None:
        self.files = {
            p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
        }
        self.commit = hashlib.sha1(b"".join(k.encode() + v for k, v in self.files.items())).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        listed: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
        listed["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if path.endswith(LARGE):
            listed["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return listed


class MiniHub:
    """with MiniHub(root) as hub: … os.environ | hub.env(home)."""

    def __init__(self, root: Path, *, token: str = "hf_secret") -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        for kind in ("models", "datasets"):
            for folder in sorted((Path(root) / kind).glob("*/*")):
                self.repositories[kind, f"{folder.parent.name}/{folder.name}"] = Repository(folder)
        self.token, self.gated, self.faults = token, set[str](), dict[str, str]()
        self.requests: list[tuple[str, str | None, str | None]] = []  # (path, Range, Authorization)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def commit(self, kind: str, name: str) -> str:
        return self.repositories[kind, name].commit

    def env(self, home: Path) -> dict[str, str]:
        """What a process needs to talk to this hub and to nothing else."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def __enter__(self) -> MiniHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub: MiniHub = self.server.hub  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        path = unquote(url.path)
        hub.requests.append((path, self.headers.get("Range"), self.headers.get("Authorization")))
        if hub.faults.get(path) == "500":
            return self._answer(500, {"error": "internal"})
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            return self._api(hub, parts[1], "/".join(parts[2:4]), parts[4:], url.query)
        kind = "datasets" if parts[0] == "datasets" else "models"
        parts = parts[1:] if kind == "datasets" else parts
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file(hub, kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]), path)
        return self._refuse(404, "NotFound")

    def _repository(self, hub: MiniHub, kind: str, name: str, revision: str) -> Repository | None:
        """The repository, or None after an error has been answered."""
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {hub.token}", "Bearer hf_other"):
            self._refuse(401, "")
        elif name in hub.gated and given != f"Bearer {hub.token}":
            self._refuse(401 if given is None else 403, "GatedRepo")
        elif (kind, name) not in hub.repositories:
            self._refuse(401 if given is None else 404, "RepoNotFound")
        elif revision not in ("main", hub.repositories[kind, name].commit):
            self._refuse(404, "RevisionNotFound")
        else:
            return hub.repositories[kind, name]
        return None

    def _api(self, hub: MiniHub, kind: str, name: str, rest: list[str], query: str) -> None:
        repository = self._repository(hub, kind, name, rest[1] if len(rest) > 1 else "main")
        if repository is None:
            return
        if rest and rest[0] == "tree":
            cursor = int(query.rpartition("cursor=")[2] or 0) if "cursor=" in query else 0
            names = list(repository.files)
            more = {}
            if cursor + PAGE < len(names):
                address = f"{hub.url}/api/{kind}/{name}/tree/{rest[1]}?recursive=true&cursor={cursor + PAGE}"
                more = {"Link": f'<{address}>; rel="next"'}
            self._answer(200, [repository.entry(n) for n in names[cursor : cursor + PAGE]], more)
        else:
            self._answer(200, {"id": name, "sha": repository.commit, "gated": name in hub.gated})

    def _file(self, hub: MiniHub, kind: str, name: str, revision: str, file: str, path: str) -> None:
        repository = self._repository(hub, kind, name, revision)
        if repository is None:
            return
        if file not in repository.files:
            return self._refuse(404, "EntryNotFound")
        content, first = repository.files[file], 0
        if (asked := self.headers.get("Range")) is not None:
            first = int(asked.removeprefix("bytes=").partition("-")[0])
        body, fault = content[first:], hub.faults.get(path, "")
        if fault.endswith("once"):
            del hub.faults[path]
        if fault.startswith("corrupt"):
            body = bytes(byte ^ 0xFF for byte in body)
        self.send_response(206 if asked is not None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.end_headers()
        if fault.startswith("truncated"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif fault == "slow":
            for i in range(0, len(body), 1 << 16):
                self.wfile.write(body[i : i + (1 << 16)])
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.wfile.write(body)

    def _refuse(self, code: int, reason: str) -> None:
        self._answer(code, {"error": reason}, {"X-Error-Code": reason, "X-Error-Message": reason})

    def _answer(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
