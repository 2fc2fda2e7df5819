"""What errors of others say, in the sentences of ours."""

__all__ = ["first_line", "one_line"]


def first_line(error: BaseException) -> str:
    """What an error says, without what would fill a screen."""
    return str(error).strip().split("\n")[0][:500] or type(error).__name__


def one_line(error: BaseException) -> str:
    """All that an error says: torch's and Lightning's may have many lines."""
    return " ".join(str(error).split()) or type(error).__name__
