"""Spoken words: the script is :mod:`snnlib.task.speech_commands.run`."""
