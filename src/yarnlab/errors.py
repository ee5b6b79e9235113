"""What a user can put right: shown as one message. Every other exception is a bug, shown with a traceback."""

EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: the state is saved and the same command continues


class UserError(Exception):
    """Its message alone says what happened, where, and what to do."""


class Interruption(Exception):
    """A run was asked to stop: its state is saved, and the same command continues."""


SHOWN = (UserError, OSError)  # a full disk or a missing file says what it is by itself
