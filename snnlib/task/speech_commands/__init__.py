"""Spoken words: the script is :mod:`snnlib.task.speech_commands.run`."""

__all__: list[str] = []
