"""What goes wrong with a download. Each message says what happened, where, and what to do."""

from collections.abc import Iterable

from yarnlab.errors import UserError


class HubError(UserError):
    """Something could not be pinned, fetched or verified, and the rest of the asset would meet the same fault."""


class FileError(HubError):
    """One file could not be had; the asset's other files can be."""


def some(names: Iterable[str]) -> str:
    """For a message: the first names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
