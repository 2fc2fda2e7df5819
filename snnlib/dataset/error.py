"""What is wrong with data."""

__all__ = ["DataError"]


class DataError(Exception):
    """Data that is missing or damaged; the message is for the user and names the file."""
