"""Print the table of docs/tasks/mnist.md: what was tried on the digits, judged on validation images alone.

    python docs/tasks/mnist_sweep.py --folds=4

Each row is ``python -m snnlib.task.mnist --dataset=digits`` with other flags, once for each fold: the mean
accuracy of the last three epochs on the validation images, over all folds. The test images play no part.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

TRIED = [
    "",
    "--noaugment",
    "--seq_length=3",
    "--seq_length=8",
    "--tau_syn_inv=500",
    "--tau_syn_inv=200 --tau_mem_inv=100",
    "--channels=16,32",
    "--learning_rate=0.005",
    "--method=super",
    "--method=super --alpha=10",
    "--method=triangle --alpha=1",
    "--encoder=constant_current",
    "--encoder=poisson",
    "--encoder=latency",
]


def accuracies(flags: str, fold: int) -> tuple[float, float]:
    """Validation accuracy of the last three epochs, and the seconds of the run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "snnlib.task.mnist", "--dataset=digits", "--noplot", f"--fold={fold}"]
        command += [f"--seed={fold}", f"--output_dir={folder}", *flags.split()]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        result = json.loads(said.splitlines()[-1].removeprefix("result: "))
        lines = (Path(result["run"]) / "metrics.jsonl").read_text().splitlines()
        return mean(json.loads(line)["valid_accuracy"] for line in lines[-3:]), result["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folds", type=int, default=4)
    folds = range(parser.parse_args().folds)
    print("| flags | validation accuracy | between folds | seconds |\n|---|---|---|---|")
    for flags in TRIED:
        runs = [accuracies(flags, fold) for fold in folds]
        found = [accuracy for accuracy, _ in runs]
        spread = stdev(found) if len(found) > 1 else float("nan")
        seconds = mean(s for _, s in runs)
        print(f"| `{flags or 'defaults'}` | {mean(found):.1%} | {spread:.1%} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
