"""Whether a neuron spiked, in the last bit of a number that is kept for every step.

The way back of the adjoint asks of each step whether there was a spike. To read the output again for it is a
fourth array beside three, where memory is all that a kernel waits for, as on a GPU. The bit takes the place of
one of the number's own, which then is off by one unit in its last place at most: 1.2e-7 of it in float32.
"""

from snnlib.engine.program import Line, Program, Traced
from snnlib.engine.program.bits import binary

__all__ = ["with_last_bit"]


def with_last_bit(traced: Traced) -> Traced:
    """The programs with the output in the last bit of the first number that is saved.

    They stay as they are where the output is not read again, or is more than 0 and 1, or no number is saved.
    """
    forward, backward = traced.forward, traced.backward
    z = forward.outputs[0]
    numbers = len(traced.saved) - traced.bytes
    if not traced.uses_output or not numbers or z not in binary(forward.lines):
        return traced
    first = len(forward.outputs) - len(traced.saved)
    mark = Line("marked", "with_last_bit", (forward.outputs[first], z))
    outputs = (*forward.outputs[:first], mark.name, *forward.outputs[first + 1 :])
    read = {"z": "k0"} | ({} if traced.slot is None else {"before_z": "before_k0"})
    lines = [Line(name, "last_bit", (number,)) for name, number in read.items()]
    inputs = tuple(name for name in backward.inputs if name not in read)
    return traced._replace(
        forward=Program(forward.inputs, (*forward.lines, mark), outputs),
        backward=Program(inputs, (*lines, *backward.lines), backward.outputs),
        saved=(mark.name, *traced.saved[1:]),
        uses_output=False,
    )
