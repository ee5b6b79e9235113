"""What is asked of the hub, through huggingface_hub: its session, token, redirects, retries, pauses, kinds of errors.

The requests themselves are its `http_backoff`. Its `HfApi` would try each listing's first request only once, and would
follow a page's link with the token wherever it points: behind a mirror, to another server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx2
from huggingface_hub import constants, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import hf_raise_for_status, http_backoff, http_stream_backoff

from yarnlab.hub.errors import FileError, HubError
from yarnlab.hub.lock import Asset


@dataclass(frozen=True)
class Patience:
    """How often a request is made that brings nothing; in seconds: the first pause (it doubles), the silence borne."""

    tries: int = 5
    pause: float = 1.0
    timeout: float = 30.0


class Hub:
    """The endpoint (HF_ENDPOINT) and the token (HF_TOKEN, or what a login left); threads may share it."""

    def __init__(self, patience: Patience | None = None) -> None:
        """Raises HubError for an endpoint or a token that cannot be one."""
        self.patience = patience or Patience()
        parts = urlsplit(constants.ENDPOINT)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise HubError(
                "HF_ENDPOINT is not an address: it has to be like https://huggingface.co. Correct or unset it"
            )
        # Without a password: addresses are logged.
        self.endpoint = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._token = get_token()
        if self._token is not None and not re.fullmatch(r"[\x21-\x7e]+", self._token):
            raise HubError(
                "the token (HF_TOKEN, or the file that a login left) holds blanks or other characters that no token "
                "has. Set HF_TOKEN anew"
            )
        # Bytes are hashed as they come, so that none may be compressed on the way.
        self._headers = {"User-Agent": "yarnlab", "Accept-Encoding": "identity"}
        if self._token is not None:
            self._headers["Authorization"] = f"Bearer {self._token}"  # httpx2 drops it where a redirect leads elsewhere
        self._options: dict[str, Any] = {
            "max_retries": self.patience.tries - 1,
            "base_wait_time": self.patience.pause,
            "timeout": self.patience.timeout,
        }
        if parts.username:
            self._options["auth"] = (unquote(parts.username), unquote(parts.password or ""))

    def commit(self, asset: Asset) -> str:
        """The 40 hex digits that the asset's branch, tag or commit stands for now. Raises HubError."""
        revision = quote(asset.revision, safe="")
        answer, _ = self._json(f"{self._api(asset)}/revision/{revision}", asset, f"revision {asset.revision}")
        return str(answer["sha"])

    def tree(self, asset: Asset, commit: str) -> list[dict[str, Any]]:
        """Every file of a commit: path, size, oid (git's sha1 of the blob), and lfs.oid (sha256) for large ones.

        Raises HubError.
        """
        found: list[dict[str, Any]] = []
        query = "recursive=true&expand=false"
        while query:
            part, link = self._json(f"{self._api(asset)}/tree/{commit}?{query}", asset, f"revision {commit}")
            found += [entry for entry in part if entry.get("type") == "file"]
            query = urlsplit(link).query  # and not the link's host
        return found

    @contextmanager
    def stream(self, asset: Asset, commit: str, path: str, first: int) -> Iterator[httpx2.Response]:
        """A file's bytes from `first` on: status 206, or 200 and all of them where the server knows no ranges.

        Raises HfHubHTTPError for a refusal, after retries if it may pass, and httpx2.HTTPError for a fault of the
        connection at once.
        """
        address = hf_hub_url(asset.repo, path, repo_type=asset.type, revision=commit, endpoint=self.endpoint)
        headers = self._headers | ({"Range": f"bytes={first}-"} if first else {})
        with http_stream_backoff("GET", address, headers=headers, retry_on_exceptions=(), **self._options) as answer:
            hf_raise_for_status(answer)
            yield answer

    def is_own(self, error: HfHubHTTPError) -> bool:
        """Whether the hub itself answered, and not the storage that it redirects to."""
        return _origin(error.response.url) == _origin(httpx2.URL(self.endpoint))

    def fault(self, error: Exception, asset: Asset, what: str) -> HubError:
        """In words what the library raised when `what` (a file or revision) was asked for."""
        if isinstance(error, OfflineModeIsEnabled):
            return HubError(f"HF_HUB_OFFLINE forbids to ask the hub for {what} of {asset.repo}: unset it")
        if not isinstance(error, HfHubHTTPError):
            return HubError(
                f"{self.endpoint} cannot be reached for {asset.repo} ({type(error).__name__}). Check the network; "
                f"set HF_ENDPOINT to a mirror; or fill the hub's cache ({constants.HF_HUB_CACHE}) on a machine with a "
                "network"
            )
        code, own = error.response.status_code, self.is_own(error)
        name, page = asset.repo, f"{self.endpoint}/{'datasets/' if asset.type == 'dataset' else ''}{asset.repo}"
        if code == 429 or code >= 500 or not own:
            whose = "" if own else " (the server it redirects to)"
            return FileError(
                f"{self.endpoint}{whose} answered {code} for {what} of {name}, {self.patience.tries} times. "
                "Try again later, or use a mirror (HF_ENDPOINT)"
            )
        if isinstance(error, RevisionNotFoundError):
            return HubError(f"{name} has no {what}: correct `revision` in the study's assets ({page}/commits)")
        if isinstance(error, RemoteEntryNotFoundError):
            return FileError(f"{name} has no file {what} at the pinned commit ({page}): correct `files`, or lock anew")
        if isinstance(error, GatedRepoError) or code == 403:
            if self._token is None:
                advice = f"accept its licence at {page}, then set HF_TOKEN or log in with `hf auth login`"
            else:
                advice = (
                    f"this token has no access. Accept the licence at {page} with the same account and wait until it "
                    "is granted, use that account's token, or allow gated repositories in the token's settings"
                )
            return HubError(f"{name} is gated: {advice}")
        if code == 401 and self._token is not None:
            return HubError(
                f"{self.endpoint} refuses the token for {name}: it is wrong or has expired. Set HF_TOKEN anew, "
                "or log in with `hf auth login`"
            )
        if code in (401, 404):
            return HubError(
                f"there is no {asset.type} {name} at {self.endpoint}, or it is private: correct `repo` in the "
                "study's assets, or set HF_TOKEN"
            )
        return FileError(
            f"{self.endpoint} answered {code} for {what} of {name}, which no hub should: check HF_ENDPOINT"
        )

    def _api(self, asset: Asset) -> str:
        return f"{self.endpoint}/api/{asset.type}s/{asset.repo}"

    def _json(self, address: str, asset: Asset, what: str) -> tuple[Any, str]:
        """The answer, and the link to its next page or ""."""
        try:
            answer = http_backoff("GET", address, headers=self._headers, **self._options)
            hf_raise_for_status(answer)
            return answer.json(), answer.links.get("next", {}).get("url", "")
        except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
            raise self.fault(error, asset, what) from None
        except ValueError:
            raise HubError(f"{self.endpoint} answered {what} of {asset.repo} with no JSON: is it a hub?") from None


def _origin(address: httpx2.URL) -> tuple[str, str, int | None]:
    return address.scheme, address.host, address.port
