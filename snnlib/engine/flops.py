"""What torch's counter of operations is told of fused loops: the products with weights that they make."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

__all__ = ["be_counted"]


def be_counted() -> None:
    """Give ``torch.utils.flop_counter``, where somebody has imported it, the formulas of both operators.

    When this is imported is too early: it would import the counter, and that Triton, in a third of a second. A
    counter that counts already has a list of its own.
    """
    counter: Any = sys.modules.get("torch.utils.flop_counter")
    if counter is None:
        return
    around = [m for m in _get_current_dispatch_mode_stack() if isinstance(m, counter._FlopCounterMode)]
    for operator, formula in (("fused_forward", _forward), ("fused_backward", _backward)):
        target = getattr(torch.ops.snnlib, operator)
        if target not in counter.flop_registry:
            counter.register_flop_formula(target, get_raw=True)(formula)
        for mode in around:
            mode.counter.flop_registry.setdefault(target, formula)


def _forward(
    input: Tensor, states: Any, parameters: Any, weights: Sequence[Tensor], name: str, out_val: Any = None
) -> int:
    return 2 * math.prod(input.shape[:2]) * sum(value.numel() for value in weights)


def _backward(
    gradient: Tensor,
    finals: Any,
    kept: Any,
    parameters: Any,
    recurrent: Sequence[Tensor],
    asked: Sequence[bool],
    name: str,
    out_val: Any = None,
) -> int:
    """As many as in the plain loop with a surrogate: autograd leaves out what nobody asks for."""
    if not recurrent:
        return 0
    weights, first, _, *of_input = recurrent
    steps, batch = gradient.shape[:2]
    back = max(steps - (not first.requires_grad), 0)
    count = (back + steps * asked[1]) * weights.numel()
    if of_input:
        count += steps * (asked[0] + asked[2]) * of_input[0].numel()
    return 2 * batch * count
