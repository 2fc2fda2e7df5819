"""What ends a run."""

__all__ = ["DivergedError", "Interrupted", "RunError", "first_line", "one_line"]


class RunError(Exception):
    """The run cannot go on; the message is for the user."""


class DivergedError(RunError):
    """A loss, or what decides an action, is not finite."""


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C or SIGTERM arrived, and the run is saved."""


def first_line(error: BaseException) -> str:
    """What an error says, without what would fill a screen."""
    return str(error).strip().split("\n")[0][:500] or type(error).__name__


def one_line(error: BaseException) -> str:
    """All that an error says: torch's and Lightning's may have many lines."""
    return " ".join(str(error).split())
