"""The few requests that the hub is asked, with one clear message for each way in which it may refuse."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

DEFAULT_ENDPOINT = "https://huggingface.co"


class HubError(RuntimeError):
    """Something could not be fetched or verified; the message says what, and what to do."""


@dataclass(frozen=True)
class Repository:
    """A model's or dataset's repository, `owner/name`."""

    type: str
    name: str

    @property
    def _prefix(self) -> str:
        return "datasets/" if self.type == "dataset" else ""

    def page(self) -> str:
        """Where a person reads about it."""
        return f"{endpoint()}/{self._prefix}{self.name}"

    def api(self, *parts: str) -> str:
        return "/".join([f"{endpoint()}/api/{self.type}s/{self.name}", *(quote(part, safe="") for part in parts)])

    def file(self, commit: str, path: str) -> str:
        return f"{self.page()}/resolve/{commit}/{quote(path)}"


def endpoint() -> str:
    """The hub or the mirror that HF_ENDPOINT names, read when it is needed."""
    return os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON")


def home() -> Path:
    """The hub's own folder on this machine: its cache and the token that a login left."""
    return Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))


def token() -> str | None:
    """HF_TOKEN, or what a login left on disk. It goes to the hub's own host and nowhere else."""
    given = os.environ.get("HF_TOKEN", "").strip()
    file = Path(os.environ.get("HF_TOKEN_PATH", home() / "token"))
    if not given and file.is_file():
        given = file.read_text(encoding="utf-8").strip()
    return given or None


@contextmanager
def client(timeout: float = 30.0) -> Iterator[httpx2.Client]:
    """A client that follows redirects; httpx drops the token when one leads to another host."""
    if offline():
        raise HubError(
            "HF_HUB_OFFLINE is set and something has to be fetched. Unset it, or fill the hub's cache "
            f"({home() / 'hub'}) on a machine with a network"
        )
    secret = token()
    headers = {"User-Agent": "yarnlab"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    with httpx2.Client(headers=headers, follow_redirects=True, timeout=timeout) as made:
        yield made


def get_json(http: httpx2.Client, repository: Repository, url: str, what: str) -> tuple[Any, str | None]:
    """The answer, and the address of its next page. Raises HubError."""
    try:
        answer = http.get(url)
    except httpx2.HTTPError as error:
        raise unreachable(repository, error) from None
    if answer.status_code != 200:
        raise refusal(answer, repository, what)
    try:
        return answer.json(), answer.links.get("next", {}).get("url")
    except ValueError:
        raise HubError(f"{endpoint()} answered with no JSON for {what} of {repository.name}: is it a hub?") from None


def commit_of(http: httpx2.Client, repository: Repository, revision: str) -> str:
    """The 40 hex digits that a branch, tag or commit stands for now."""
    answer, _ = get_json(http, repository, repository.api("revision", revision), f"revision {revision}")
    return str(answer["sha"])


def tree(http: httpx2.Client, repository: Repository, commit: str) -> list[dict[str, Any]]:
    """Every file of a commit as the hub lists it: path, size, oid (git's sha1), and lfs.oid (sha256) for large ones."""
    found: list[dict[str, Any]] = []
    url: str | None = repository.api("tree", commit) + "?recursive=true&expand=false"
    while url is not None:
        part, url = get_json(http, repository, url, "the list of files")
        found += [entry for entry in part if entry["type"] == "file"]
    return found


def unreachable(repository: Repository, error: Exception) -> HubError:
    return HubError(
        f"{endpoint()} cannot be reached for {repository.name} ({type(error).__name__}). Check the network; "
        "HF_ENDPOINT names a mirror; a machine without a network needs a filled cache and HF_HUB_OFFLINE=1"
    )


def refusal(answer: httpx2.Response, repository: Repository, what: str) -> HubError:
    """What an error answer means, in words."""
    code, reason = answer.status_code, answer.headers.get("X-Error-Code", "")
    name, page = repository.name, repository.page()
    if reason == "GatedRepo" or code == 403:
        if token() is None:
            advice = f"accept its licence at {page}, then set HF_TOKEN or log in with `hf auth login`"
        else:
            advice = f"this token has no access: accept the licence at {page} with the same account, or use its token"
        return HubError(f"{name} is gated: {advice}")
    if code == 401 and reason != "RepoNotFound":
        return HubError(f"the hub refuses the token for {name}: it is wrong or has expired. Set HF_TOKEN anew")
    if reason == "RevisionNotFound":
        return HubError(f"{name} has no {what}: correct `revision` in the study's assets ({page}/commits)")
    if reason == "EntryNotFound":
        return HubError(
            f"{name} has no {what} at this commit: correct `files` in the study's assets ({page}/tree/main)"
        )
    if code in (401, 404):
        return HubError(
            f"there is no {repository.type} {name} at {endpoint()}, or it is private: correct `repo`, or set HF_TOKEN"
        )
    return HubError(
        f"{endpoint()} answered {code} for {what} of {name}; try again later, or use a mirror (HF_ENDPOINT)"
    )
