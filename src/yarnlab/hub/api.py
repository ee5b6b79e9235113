"""The few requests that the hub is asked: patient with faults that pass, one clear message for those that do not.

The token goes to the endpoint's own origin and nowhere else: not where a redirect leads, not where a page link points.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import httpx2

from yarnlab.hub import settings
from yarnlab.hub.faults import (
    Gated,
    HubError,
    HubFailure,
    Interrupted,
    NoSuchFile,
    NoSuchRepository,
    NoSuchRevision,
    TokenRejected,
    Unreachable,
)

REDIRECTS = 8
LONGEST_PAUSE = 60.0  # seconds
LONGEST_ASKED = 600.0  # seconds that the hub may ask for; it counts requests over five minutes


@dataclass(frozen=True)
class Patience:
    """How often a request is made that brings nothing; in seconds: the first pause (it doubles), the silence borne."""

    tries: int = 5
    pause: float = 1.0
    timeout: float = 30.0

    def after(self, failures: int, problem: HubError) -> float:
        """Seconds until the next request: what the hub asks for, else twice as long as before."""
        if isinstance(problem, HubFailure) and problem.pause is not None:
            return min(problem.pause, LONGEST_ASKED)
        return min(self.pause * 2 ** (failures - 1), LONGEST_PAUSE)


@dataclass(frozen=True)
class Repository:
    """A model's or dataset's repository, `owner/name`."""

    type: str
    name: str

    @property
    def page(self) -> str:
        """Its path on the hub, for people and for files."""
        return f"datasets/{self.name}" if self.type == "dataset" else self.name

    @property
    def api(self) -> str:
        return f"api/{self.type}s/{self.name}"


class Hub:
    """The endpoint, the token and the connections of one fetch; threads may share it. Raises HubError throughout."""

    def __init__(self, patience: Patience | None = None, stop: threading.Event | None = None) -> None:
        self.patience = patience or Patience()
        self.stop = stop or threading.Event()  # when it is set, pauses end at once
        self._endpoint = settings.endpoint()
        parts = urlsplit(self._endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(
                "HF_ENDPOINT is not an address: it has to be like https://huggingface.co. Correct or unset it"
            )
        self.shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))  # without a password
        self._origin = _origin(self._endpoint)
        self._token = settings.token()
        if self._token is not None and not re.fullmatch(r"[\x21-\x7e]+", self._token):
            raise TokenRejected(
                "the token (HF_TOKEN, or the file that a login left) holds blanks, line breaks or other characters "
                "that no token has. Set HF_TOKEN anew"
            )
        # Bytes are hashed as they come, so that none may be compressed on the way.
        headers = {"User-Agent": "yarnlab", "Accept-Encoding": "identity"}
        self._http = httpx2.Client(headers=headers, follow_redirects=False, timeout=self.patience.timeout)

    def __repr__(self) -> str:
        return f"Hub({self.shown})"

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def page(self, repository: Repository) -> str:
        """Where a person reads about a repository."""
        return f"{self.shown}/{repository.page}"

    def commit(self, repository: Repository, revision: str) -> str:
        """The 40 hex digits that a branch, tag or commit stands for now."""
        address = f"{self._endpoint}/{repository.api}/revision/{quote(revision, safe='')}"
        answer, _ = self._json(address, repository, f"revision {revision}")
        return str(answer["sha"])

    def tree(self, repository: Repository, commit: str) -> list[dict[str, Any]]:
        """Every file of a commit: path, size, oid (git's sha1 of the blob), and lfs.oid (sha256) for large ones."""
        address = f"{self._endpoint}/{repository.api}/tree/{commit}"
        found: list[dict[str, Any]] = []
        query: str | None = "recursive=true&expand=false"
        while query:
            part, query = self._json(f"{address}?{query}", repository, f"revision {commit}")
            found += [entry for entry in part if entry.get("type") == "file"]
        return found

    @contextmanager
    def open(self, repository: Repository, commit: str, path: str, first: int) -> Iterator[httpx2.Response]:
        """A file's bytes from `first` on: status 206, or 200 and all of them where the server knows no ranges.

        Raises httpx2.HTTPError for faults of the connection, HubError for a refusal.
        """
        address = f"{self._endpoint}/{repository.page}/resolve/{commit}/{quote(path)}"
        answer = self._send(address, {"Range": f"bytes={first}-"} if first else {})
        try:
            if answer.status_code not in (200, 206):
                raise self._refusal(answer, repository, path)
            yield answer
        finally:
            answer.close()

    def unreachable(self, repository: Repository, error: Exception) -> HubError:
        return Unreachable(
            f"{self.shown} cannot be reached for {repository.name} ({type(error).__name__}). Check the network; set "
            f"HF_ENDPOINT to a mirror; or fill the hub's cache ({settings.cache()}) on a machine with a network"
        )

    def _json(self, address: str, repository: Repository, what: str) -> tuple[Any, str | None]:
        """The answer, and the query of its next page."""
        failures = 0
        while True:
            try:
                answer = self._send(address, {})
                with _closing(answer):
                    if answer.status_code == 200:
                        answer.read()
                        return answer.json(), self._next(answer)
                    problem = self._refusal(answer, repository, what)
            except httpx2.HTTPError as error:
                problem = self.unreachable(repository, error)
            except ValueError:
                problem = HubFailure(f"{self.shown} answered {what} of {repository.name} with no JSON: is it a hub?")
            failures += 1
            if failures >= self.patience.tries or not passes(problem):
                raise problem
            self.stop.wait(self.patience.after(failures, problem))

    def _next(self, answer: httpx2.Response) -> str | None:
        """Only the query: behind a mirror, the link's host may be another one."""
        link = answer.links.get("next", {}).get("url")
        return urlsplit(link).query if link else None

    def _send(self, address: str, headers: dict[str, str]) -> httpx2.Response:
        for _ in range(REDIRECTS):
            secret = self._token if _origin(address) == self._origin else None
            credentials = {"Authorization": f"Bearer {secret}"} if secret else {}
            answer = self._http.send(
                self._http.build_request("GET", address, headers=headers | credentials), stream=True
            )
            if not answer.has_redirect_location:
                return answer
            answer.close()
            address = urljoin(address, answer.headers["Location"])
        raise httpx2.TooManyRedirects("redirected again and again")

    def _refusal(self, answer: httpx2.Response, repository: Repository, what: str) -> HubError:
        """What an error answer means, in words."""
        code, reason = answer.status_code, answer.headers.get("X-Error-Code", "")
        name, page = repository.name, self.page(repository)
        ours = _origin(str(answer.url)) == self._origin
        if code == 429 or code >= 500 or not ours:
            whose = "" if ours else " (the server it redirects to)"
            return HubFailure(
                f"{self.shown}{whose} answered {code} for {what} of {name}, {self.patience.tries} times. "
                "Try again later, or use a mirror (HF_ENDPOINT)",
                _asked_pause(answer.headers.get("Retry-After", "")),
            )
        if reason == "GatedRepo" or code == 403:
            if self._token is None:
                advice = f"accept its licence at {page}, then set HF_TOKEN or log in with `hf auth login`"
            else:
                advice = (
                    f"this token has no access. Accept the licence at {page} with the same account and wait until it "
                    "is granted, use that account's token, or allow gated repositories in the token's settings"
                )
            return Gated(f"{name} is gated: {advice}")
        if reason == "RevisionNotFound":
            return NoSuchRevision(f"{name} has no {what}: correct `revision` in the study's assets ({page}/commits)")
        if reason == "EntryNotFound":
            return NoSuchFile(f"{name} has no file {what} at the pinned commit ({page}): correct `files`, or lock anew")
        if code == 401 and self._token is not None:
            return TokenRejected(
                f"{self.shown} refuses the token for {name}: it is wrong or has expired. Set HF_TOKEN anew, "
                "or log in with `hf auth login`"
            )
        if code in (401, 404):
            return NoSuchRepository(
                f"there is no {repository.type} {name} at {self.shown}, or it is private: correct `repo` in the "
                "study's assets, or set HF_TOKEN"
            )
        return HubFailure(f"{self.shown} answered {code} for {what} of {name}, which no hub should: check HF_ENDPOINT")


def passes(problem: HubError) -> bool:
    """Whether asking again may help."""
    return isinstance(problem, Unreachable | HubFailure | Interrupted)


def _asked_pause(given: str) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; None for neither."""
    try:
        seconds = float(given) if given.strip().isdigit() else parsedate_to_datetime(given).timestamp() - time.time()
    except ValueError:
        return None
    return max(0.0, seconds)


@contextmanager
def _closing(answer: httpx2.Response) -> Iterator[None]:
    try:
        yield
    finally:
        answer.close()


def _origin(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
