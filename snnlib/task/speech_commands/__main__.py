"""``python -m snnlib.task.speech_commands`` runs the script beside this file."""

from snnlib.task.speech_commands.run import main

if __name__ == "__main__":
    main()
