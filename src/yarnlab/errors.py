"""What a user can put right: shown as one message. Every other exception is a bug, shown with a traceback."""

EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: the state is saved and the same command continues


class UserError(Exception):
    """Its message alone says what happened, where, and what to do."""


class Interruption(Exception):
    """A run was asked to stop: its state is saved, and the same command continues."""


SHOWN = (UserError, OSError)  # a full disk or a missing file says what it is by itself


def killed(what: str) -> str:
    """The message about a job or process that SIGKILL ended, which can't say so itself."""
    return (
        f"{what} was killed (SIGKILL), by hand or since memory ran out: run the same command again, with fewer --cores "
        "if it was memory"
    )
