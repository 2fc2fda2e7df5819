"""What the loops of recurrent layers do around a step: lines, and the arguments that these need.

``row`` and ``total`` are what the neurons ``a:b`` hear at a step, forward and backward, ``rows`` what steps
back give to their input, ``c:d`` the inputs of a block of whole samples. Products are called by address.
"""

__all__ = ["AHEAD", "GROWN", "HEARD", "HEARING", "INPUTS", "PRODUCTS", "PUSHED", "PUSHED_LAST", "PUSHING"]

PRODUCTS = {"forward": ("multiply",), "backward": ("push", "grow")}
"""The functions of :mod:`snnlib.engine.loops.product` whose addresses a loop is given, before its flags."""
AHEAD = 16
"""Steps for which a product that no next step waits for is formed at a time, the last first: its matrix stays
in the first cache."""
_SAMPLES = ["neurons", "inputs", "moves"]
HEARING = ["first", "columns", "columns_in", "row", "drive", "active", *PRODUCTS["forward"], "weighted"]
HEARING += _SAMPLES
"""Arguments of the forward loop."""
PUSHING = ["last", "first", "weights", "x", "weights_in", "gw", "gw_in", "g_first", "rows", "total", "active"]
PUSHING += [*PRODUCTS["backward"], "weighted", "learns", "learns_in", "asked", *_SAMPLES]
"""Arguments of the backward loop."""
INPUTS = "c, d = a // neurons * inputs, b // neurons * inputs"
"""Before the first step of a block."""

# before a step
HEARD = f"""\
k = t & {AHEAD - 1}
if weighted and k == 0:
    for s in range(min(t + {AHEAD}, z.shape[0]) - 1, t - 1, -1):
        call_address(multiply, x[s * moves, c:d], columns_in, drive[s - t, : b - a], active)
call_address(multiply, first[a:b] if t == 0 else z[t - 1, a:b], columns, row[: b - a], active)
if weighted:
    add(drive[k, : b - a], row[: b - a])
else:
    add(x[t * moves, a:b], row[: b - a])
"""

# before a step back
PUSHED = f"""\
k = t & {AHEAD - 1}
if t == gz.shape[0] - 1:
    copy(last[a:b], total[: b - a])
else:
    call_address(push, rows[t + 1 & {AHEAD - 1}, : b - a], weights, total[: b - a])
add(gz[t, a:b], total[: b - a])
"""
# after a step back: the gradients of weights and of the input
GROWN = f"""\
if learns and k == 0:
    for s in range(min(t + {AHEAD}, z.shape[0]) - 1, t - 1, -1):
        call_address(grow, first[a:b] if s == 0 else z[s - 1, a:b], rows[s - t, : b - a], gw, active)
if learns_in and k == 0:
    for s in range(min(t + {AHEAD}, z.shape[0]) - 1, t - 1, -1):
        call_address(grow, x[s * moves, c:d], rows[s - t, : b - a], gw_in, active)
if asked and weighted and k == 0:
    for s in range(min(t + {AHEAD}, z.shape[0]) - 1, t - 1, -1):
        call_address(push, rows[s - t, : b - a], weights_in, gx[s, c:d])
elif asked and not weighted:
    copy(rows[k, : b - a], gx[t, a:b])
"""
# after the first step
PUSHED_LAST = "call_address(push, rows[0, : b - a], weights, g_first[a:b])"
