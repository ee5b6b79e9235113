"""What goes wrong with a download. Each message says what happened, where, and what to do."""

from yarnlab.errors import UserError


class HubError(UserError):
    """Something could not be pinned, fetched or verified, and the rest of the asset would meet the same fault."""


class FileError(HubError):
    """One file could not be had; the asset's other files can be."""
