"""Whether a neuron spiked, in the last bit of a number that is kept for every step.

The way back of the adjoint asks of each step whether there was a spike. To read the output again for it is a
fourth array beside three, where memory is all that a kernel waits for, as on a GPU. The bit takes the place of
one of the number's own, which then is off by one unit in its last place at most: 1.2e-7 of it in float32. Where
a condition is read from the number again it keeps all its bits: there one unit may be all the difference.
"""

from snnlib.engine.program import Line, Program, Traced
from snnlib.engine.program.bits import binary, is_compared

__all__ = ["with_last_bit"]


def with_last_bit(traced: Traced) -> Traced:
    """The programs with the output in the last bit of a number that is saved.

    They stay as they are where the output is not read again, or is more than 0 and 1, or no number has room.
    """
    forward, backward = traced.forward, traced.backward
    z = forward.outputs[0]
    numbers = range(len(traced.saved) - traced.bytes)
    k = next((k for k in numbers if not is_compared(backward, f"k{k}", f"before_k{k}")), None)
    if not traced.uses_output or k is None or z not in binary(forward.lines):
        return traced
    at = len(forward.outputs) - len(traced.saved) + k
    mark = Line("with_z", "with_last_bit", (forward.outputs[at], z))
    read = {"z": f"k{k}"} | ({} if traced.slot is None else {"before_z": f"before_k{k}"})
    lines = [Line(name, "last_bit", (number,)) for name, number in read.items()]
    inputs = tuple(name for name in backward.inputs if name not in read)
    outputs = (*forward.outputs[:at], mark.name, *forward.outputs[at + 1 :])
    return traced._replace(
        forward=Program(forward.inputs, (*forward.lines, mark), outputs),
        backward=Program(inputs, (*lines, *backward.lines), backward.outputs),
        saved=(*traced.saved[:k], mark.name, *traced.saved[k + 1 :]),
        uses_output=False,
    )
