"""What ends a run."""

__all__ = ["DivergedError", "Interrupted", "RunError"]


class RunError(Exception):
    """The run cannot go on; the message is for the user."""


class DivergedError(RunError):
    """A loss, or what decides an action, is not finite."""


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C or SIGTERM arrived, and the run is saved."""
