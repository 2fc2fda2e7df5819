"""Print the table of convolutions and linear maps of spikes of docs/performance.md, torch's beside snnlib's.

    python -m docs.performance.products

Each layer runs forward and backward on the same spikes, float32, the channels of a pixel side by side; medians
of 10 passes after 2, all ways in turn in one process, milliseconds. "auto" is what layers of this kind do by
default.
"""

import torch
from torch import nn

from docs.timed import in_turn
from snnlib import SpikeConv2d, SpikeLinear
from snnlib.engine import keep_memory

PADDED = {"padding": 1}
LAYERS: dict[str, tuple[type[nn.Module], tuple[int, ...], dict[str, int], tuple[int, ...]]] = {
    "conv 32 to 64, 3x3, on 640 maps of 14x14": (SpikeConv2d, (32, 64, 3), PADDED, (640, 32, 14, 14)),
    "the same, pooled by 2": (SpikeConv2d, (32, 64, 3), PADDED | {"pool": 2}, (640, 32, 14, 14)),
    "conv 64 to 64, 3x3, on 640 maps of 7x7": (SpikeConv2d, (64, 64, 3), PADDED, (640, 64, 7, 7)),
    "conv 128 to 128, 3x3, on 320 maps of 16x16": (SpikeConv2d, (128, 128, 3), PADDED, (320, 128, 16, 16)),
    "linear 512 to 512, on 8000 rows": (SpikeLinear, (512, 512), {}, (8000, 512)),
    "linear 3136 to 256, on 640 rows": (SpikeLinear, (3136, 256), {}, (640, 3136)),
}
SHARES = (0.02, 0.1, 0.2, 0.3)
"""Of the inputs that spike."""
WAYS = ("reference", "cpu", "auto")
COLUMNS = tuple(f"{way} {direction}" for direction in ("forward", "backward") for way in WAYS)


def main() -> None:
    keep_memory()
    print("| layer | spikes | " + " | ".join(COLUMNS) + " |")
    print("|---" * (2 + len(COLUMNS)) + "|")
    for name, (kind, sizes, options, shape) in LAYERS.items():
        for share in SHARES:
            torch.manual_seed(0)
            x = (torch.rand(shape) < share).float()
            made = {way: kind(*sizes, **options, backend=way) for way in WAYS}
            if x.dim() == 4:
                x = x.contiguous(memory_format=torch.channels_last)
                made = {way: layer.to(memory_format=torch.channels_last) for way, layer in made.items()}
            times = in_turn(made, x, torch.ones_like(made["auto"](x)), passes=10, before=2)
            cells = " | ".join(f"{times[way][k]:.1f}" for k in (0, 1) for way in WAYS)
            print(f"| {name} | {share:.0%} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
