"""The two loops of a traced step, forward and backward, in the language of :mod:`snnlib.engine.llvm.compiler`.

Outside are blocks of neurons ``a:b``, inside is time ``t``, and within a step words of neurons ``u:v``, for
each a call of the step's program (:mod:`snnlib.engine.emit.step`). The text around that is here as it is
written, piece by piece, but for what recurrent neurons hear (:mod:`snnlib.engine.emit.recurrent`). The loops
take arrays:

- ``x``, ``z``, ``gz``, ``gx``: input and output, and their gradients; ``s0, ...`` and ``g0, ...`` the states
  and theirs, ``p0, ...`` and ``gp0, ...`` the parameters and theirs, ``k0, ...`` what is saved of every step.
- ``room``: where a thread keeps what is kept for events alone (:mod:`snnlib.engine.loops.packed`), and
  ``scratch``, where it has those of one step in the backward pass.

In the room ``masks`` are the words of bits, with the number of events behind them, ``packed`` the numbers of
all events, from ``begin`` on, and ``squeezed`` those of a step, from ``spare`` on, backward in the scratch.
``to`` is the place of a word: where they begin, backward where they end. ``fill`` is 15 if the events of each
step are filled up to sixteen.
"""

from collections.abc import Iterable

from snnlib.engine.emit.expression import literal
from snnlib.engine.emit.recurrent import GROWN, HEARD, HEARING, INPUTS, PUSHED, PUSHED_LAST, PUSHING
from snnlib.engine.emit.step import call_of, function_of, in_rows, kept_in_place, rooms_of
from snnlib.engine.emit.template import filled
from snnlib.engine.program import Program, Traced, numbers_of
from snnlib.engine.sizes import LONG, WORD

__all__ = ["backward_loop", "forward_loop"]

# a word at a time the next rows are asked for little by little, what is packed is still in the first cache, and
# few writes wait for memory with those of the output
_WORDS = f"""\
whole = b - (b - a & {WORD - 1})
for u in range(a, whole, {WORD}):
    v = u + {WORD}
    <word>
if whole < b:
    u, v = whole, b
    <word>
"""

_ROOMS = f"""\
masks = room
packed = as_numbers(room, begin, {{like}}, room.shape[0])
squeezed = as_numbers({{where}}, spare, {{like}}, {{count}}, block + {LONG})
events = on_stack(packed, {{count}}, {2 * WORD})
"""

_FORWARD = """

def forward({arguments}):
    <begin>
    for a in range(start, stop, block):
        b = min(a + block, stop)
        <block>
        for t in range(z.shape[0]):
            <heard>
            <step>
        <end>
    <last>
"""

# columns of a word in the room for two, and those of the word before or behind
_SIDES = f"""\
here = (to & 1) * {WORD}
there = {WORD} - here
"""

# without registers a word is packed one word later: by then it is known how often the loop over its bits runs
_PACK_WORD = f"""\
{_SIDES}
<ahead>
before = word
word, found = {{call}}
if not from_registers(squeezed):
    found = pack(before, events, there, squeezed, found)
masks[to] = word
to += 1
"""
_PACK = f"""\
found = word = 0
<words>
{_SIDES}
if not from_registers(squeezed):
    found = pack(word, events, there, squeezed, found)
at = append(squeezed, found, packed, at, {{past}})
"""
_PICKED = """\
bits = bits_of({mark})
word |= at_place(bits, j)
if from_registers(squeezed):
    found = pick(bits, squeezed, found, j, {values})
"""
_UNPICKED = "if not from_registers(squeezed): {}_[j] = {}"


def forward_loop(traced: Traced, recurrent: bool, past: bool = False) -> str:
    """The function ``forward``: arrays of the input, of states and parameters, of the output, of what is kept,
    and the rest.

    Parameters:
        traced: the step, its numbers lifted.
        recurrent: whether the output of each step returns through weights.
        past: whether what is kept goes past the caches.
    """
    program = traced.forward
    states, parameters = (_named(program, first) for first in "sp")
    kept = [f"k{k}" for k in range(len(traced.saved))]
    events = [f"e{k}" for k in range(len(traced.events))]
    rows = ["x", *states, *parameters, "z", *kept]
    far = kept[: len(kept) - traced.bytes] if past else []
    written = ["z", *states, *kept]
    ways = dict.fromkeys(far, "put_past({}_, j, {})") | dict.fromkeys(events, _UNPICKED)
    lines = in_rows(program, [*rows, *events], [*written, *events], ways=ways)
    mark = literal(program.outputs[-1 if traced.marked else 0])
    values = map(literal, program.outputs[len(written) : len(written) + len(events)])
    bits = [_PICKED.format(mark=mark, values=", ".join(values))] if events else []
    around = ["word = 0"] * len(bits), ["return word, found"] * len(bits)
    own = ["squeezed", "found"] if events else []
    inner = function_of("forward", [*rows, *events], program, [*lines, *bits], *around, more=own)

    places = {name: f"{name}[u:v]" for name in states + parameters}
    places |= {name: f"{name}[t, u:v]" for name in ("z", *kept)}
    places["x"] = "row[u - a : v - a]" if recurrent else "x[t * moves, u:v]"
    call = call_of("forward", [*(places[name] for name in rows), *rooms_of(events), *own], program)
    near = ["z", *(name for name in kept if name not in far)]
    ahead = ["ask_to_read(x, (t + 1) * moves, u)", *(f"ask_to_write({name}, t + 1, u)" for name in near)]
    ahead = [] if recurrent else ahead
    word = [filled(_PACK_WORD, {"ahead": ahead}, call=call)] if events else [*ahead, call]
    words = filled(_WORDS, {"word": word})
    step = filled(_PACK, {"words": [words]}, past=past) if events else words
    arguments = [*rows, *(["room"] if events else []), *(HEARING if recurrent else ["moves"])]
    arguments += ["to", "begin", "spare"] if events else []
    blocks = {
        "begin": [_ROOMS.format(count=len(events), like="z", where="room"), "at = 0"] if events else [],
        "block": [INPUTS] * recurrent,
        "heard": [HEARD] * recurrent,
        "step": [step],
        "end": ["fence()"] if past and not recurrent else [],
        "last": ["masks[to] = at"] if events else [],
    }
    return inner + filled(_FORWARD, blocks, arguments=_listed(arguments, program))


_BACKWARD = """

def backward({arguments}):
    <rooms>
    <blocks>
        <begin>
        for t in range(gz.shape[0] - 1, -1, -1):
            <heard>
            <step>
            <grown>
        <end>
"""

_BLOCKS = """\
for a in range(start, stop, block):
    b = min(a + block, stop)
"""
# the last first, as all that was packed is unpacked
_PACKED_BLOCKS = """\
at, end = masks[to], to
for r in range((stop - start - 1) // block, -1, -1):
    a = start + r * block
    b = min(a + block, stop)
"""

# what is read backward in parts the CPU does not see coming; without registers a word is unpacked one word
# ahead, because a vector that is read right behind its numbers waits for them
_UNPACK = f"""\
begun, found = back(b - a, masks, end)
filled = found + (-found & fill)
to, at = begun, at - filled
for n in range(0, {{count}} * filled, {WORD}):
    ask_to_read(packed, {{count}} * at - {{count}} * filled + n)
for n in range(0, found, {LONG}):
    {{between}}
{_SIDES}
column = 0
if not to_registers(squeezed):
    column = unpack(masks[to], squeezed, column, events, here)
<words>
end = begun
"""
_UNPACK_WORD = f"""\
{_SIDES}
<ahead>
if not to_registers(squeezed):
    column = unpack(masks[to + 1] if v < b else 0, squeezed, column, events, there)
word = masks[to]
column = {{call}}
to += 1
"""

_PLACED = "{0} = placed(squeezed, {1}, column, word, j) if to_registers(squeezed) else {0}_[j]"
_BEHIND = """\
if to_registers(squeezed):
    column = behind(column, word, j)
"""

_DOUBLE = {
    "before_z": "silent[u:v] if t == 0 else z[t - 1, u:v]",
    "before_k0": "k0[t, u:v]",
    "k0": "k0[t + 1, u:v]",
}
"""Where the step before is read too; what was saved has a row before that of the first step."""


def backward_loop(traced: Traced, recurrent: bool) -> str:
    """The function ``backward``: arrays of the output's gradient, of what was kept, of the input's gradient, of
    the gradients of states, of parameters and their gradients, and the rest.

    Parameters:
        traced, recurrent: as for :func:`forward_loop`.
    """
    states, rows = _states_back(traced.backward), _rows_back(traced, recurrent)
    events, before = bool(traced.events), ["silent"] if traced.slot is not None else []
    functions, step, later = _step_back(traced, rows, recurrent)
    own = [*states, *_named(traced.backward, "p"), *_sums(traced.backward, states)]
    arguments = [*rows, *before, *own, *(["scratch", "room"] if events else [])]
    arguments += [*(PUSHING if recurrent else []), *(["fill", "to", "begin", "spare"] if events else [])]
    nexts = [f"next_{name} = {name}[a:b] if t == gz.shape[0] - 1 else gz[t + 1, a:b]" for name in later]
    blocks = {
        "rooms": [_ROOMS.format(count=len(traced.between.outputs), like="gz", where="scratch")] * events,
        "blocks": [_PACKED_BLOCKS if events else _BLOCKS],
        "begin": [INPUTS] * recurrent,
        "heard": [PUSHED] if recurrent else nexts,
        "step": [step],
        "grown": [GROWN] * recurrent,
        "end": [PUSHED_LAST] if recurrent else [f"copy(gz[0, a:b], {name}[a:b])" for name in later],
    }
    return functions + filled(_BACKWARD, blocks, arguments=_listed(arguments, traced.backward, traced.between))


def _step_back(traced: Traced, rows: list[str], recurrent: bool) -> tuple[str, str, list[str]]:
    """The functions of a step back, the lines of one of a block, and the states that it does not write."""
    program, states = traced.backward, _states_back(traced.backward)
    sums = _sums(program, states)
    events = [f"b{k}" for k in range(len(traced.between.outputs))]
    program, later = kept_in_place(program, states) if events and not recurrent else (program, [])
    has_events = len(events) > 0
    has_z = has_events and not traced.marked  # its bits are nearer than the output itself
    timed = [name for name in rows if not (has_z and name == "z")]
    places = {name: f"{name}[t, u:v]" for name in timed} | ({} if traced.slot is None else _DOUBLE)
    places |= {name: f"{name}[u:v]" for name in (*states, *_named(program, "p"), *sums)}
    places |= {name: f"next_{name}[u - a : v - a]" for name in later}
    if recurrent:
        places |= {"gz": "total[u - a : v - a]", "gx": "rows[k, u - a : v - a]"}
    lines = ["z = where(has_bit(word, j), F(1.0), F(0.0))"] * has_z
    reads = {name: _PLACED.format(name, k) for k, name in enumerate(events)}
    lines += in_rows(program, [*places, *events], ["gx", *states], sums, reads=reads)
    lines += [_BEHIND] * has_events
    own, last = ["squeezed", "column", "word"] * has_events, ["return column"] * has_events
    function = function_of("backward", [*places, *events], program, lines, last=last, more=own)
    call = call_of("backward", [*places.values(), *rooms_of(events), *own], program)
    ahead = [f"ask_to_read({name}, t - 1, u)" for name in timed if name != "gx"] + [
        "ask_to_write(gx, t - 1, u)"
    ]
    ahead = [] if recurrent else ahead
    if not events:
        return function, filled(_WORDS, {"word": [*ahead, call]}), later
    words = filled(_WORDS, {"word": [filled(_UNPACK_WORD, {"ahead": ahead}, call=call)]})
    between, call = _between(traced, events)
    step = filled(_UNPACK, {"words": [words]}, count=len(traced.events), between=call)
    return function + between, step, later


def _between(traced: Traced, read: list[str]) -> tuple[str, str]:
    """The function from what was packed to what a step back reads of it, and a call of it."""
    kept = [f"e{k}" for k in range(len(traced.events))]
    count, program = len(kept), traced.between
    starts = [f"{count} * at + {k} * filled + n" for k in range(count)]
    rooms = [f"packed[{start} : {start} + {LONG}]" for start in starts]
    rooms += [f"squeezed[{k}, n : n + {LONG}]" for k in range(len(read))]
    lines = in_rows(program, [*kept, *read], read)
    return function_of("between", [*kept, *read], program, lines), call_of("between", rooms, program)


def _named(program: Program, first: str) -> list[str]:
    return [name for name in program.inputs if name.startswith(first)]


def _states_back(program: Program) -> list[str]:
    return [name for name in _named(program, "g") if name != "gz"]


def _sums(program: Program, states: list[str]) -> list[str]:
    return [f"gp{k}" for k in range(len(program.outputs) - 1 - len(states))]


def _rows_back(traced: Traced, recurrent: bool) -> list[str]:
    """Of each step: the output's gradient, what was kept, and the input's gradient."""
    kept = [f"k{k}" for k in range(len(traced.saved))]
    return ["gz", *(["z"] if traced.uses_output or recurrent else []), *kept, "gx"]


def _listed(names: Iterable[str], *programs: Program) -> str:
    """Arguments of a loop, with the numbers of its programs."""
    return ", ".join([*names, "start", "stop", "block", *(n for p in programs for n in numbers_of(p))])
