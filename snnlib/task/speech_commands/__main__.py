"""``python -m snnlib.task.speech_commands`` runs the script beside this file."""

from snnlib.task.speech_commands.run import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
