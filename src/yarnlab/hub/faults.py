"""What can go wrong with a download. Each message says what happened, where, and what to do."""

from __future__ import annotations

from typing import ClassVar

from yarnlab.errors import UserError


class HubError(UserError):
    """Something could not be fetched or verified.

    `concerns_all`: every other file of the asset would meet the same fault, so nothing more is asked of the hub.
    """

    concerns_all: ClassVar[bool] = False


class LockError(HubError):
    """config/hub.lock.yaml is unreadable, lacks the asset, or pins what the hub no longer has."""

    concerns_all = True


class Gated(HubError):
    """The repository's licence has not been accepted, or not by the token's account."""

    concerns_all = True


class TokenRejected(HubError):
    """The token is malformed, wrong or expired."""

    concerns_all = True


class NoSuchRepository(HubError):
    """The repository does not exist, or is private."""

    concerns_all = True


class NoSuchRevision(HubError):
    """The repository has no such branch, tag or commit."""

    concerns_all = True


class NoSuchFile(HubError):
    """The repository lacks a file that the study or an index of weights names."""


class Interrupted(HubError):
    """A file's body ended early again and again; what arrived is kept."""


class Corrupt(HubError):
    """A file of the right size with the wrong content arrived twice; nothing of it is kept."""


class Unreachable(HubError):
    """No connection to the hub."""

    concerns_all = True


class HubFailure(HubError):
    """The hub answers with errors of its own. `pause`: seconds that it asks to be left alone, where it says so."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


class Offline(HubError):
    """Files are missing and HF_HUB_OFFLINE forbids to fetch them."""

    concerns_all = True


class DiskFull(HubError):
    """The disk has no room for what is missing."""

    concerns_all = True


class Refused(HubError):
    """A file that could run code when it is loaded."""


class UnknownConfig(HubError):
    """A published config.json whose rope has no stock form."""
