"""The two loops of a traced step, forward and backward, in the language of :mod:`snnlib.engine.compiler`."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from snnlib.engine.expression import expression, literal
from snnlib.engine.program import Program, Traced, numbers_of
from snnlib.engine.sizes import LANES, LONG, WORD

__all__ = ["AHEAD", "PRODUCTS", "backward_loop", "forward_loop"]

PRODUCTS = {"forward": ("multiply",), "backward": ("push", "grow")}
"""The functions of :mod:`snnlib.engine.product` whose addresses a recurrent loop is given, before its flags."""

AHEAD = 16
"""Steps for which a product that no next step waits for is formed at a time."""
_LONG = {"exp", "expm1", "sigmoid", "tanh"}
"""Operators of some twenty instructions, of which each waits for the one before."""
_SIZES = ["neurons", "inputs"]
_INPUTS = "c, d = a // neurons * inputs, b // neurons * inputs"
"""The inputs of a block of whole samples."""
_SIDES = f"here = (to & 1) * {WORD}", f"there = {WORD} - here"
"""Where the columns of a word begin in the room for two, and those of the word before or behind."""
_ROOM = "here : here + v - u"
"""The columns of a word."""
_EVENTS = ["events", "squeezed", "packed", "masks", "blocks"]
"""What is kept for events alone: room for two words of neurons, for the events of a step, for all, their bits,
and of each block its first and last neurons, where its events and words end, and 15 if those of each step are
filled up to sixteen."""


def _over_steps(line: str) -> list[str]:
    """A line for the steps from ``t`` on, the last first: its matrix stays in the first cache."""
    return [f"    for s in range(min(t + {AHEAD}, z.shape[0]) - 1, t - 1, -1):", f"        {line}"]


_HEARD = [
    f"k = t & {AHEAD - 1}",
    "if weighted and k == 0:",
    *_over_steps("call_address(multiply, x[s * moves, c:d], columns_in, drive[s - t, : b - a], active)"),
    "call_address(multiply, first[a:b] if t == 0 else z[t - 1, a:b], columns, row[: b - a], active)",
    "if weighted:",
    "    add(drive[k, : b - a], row[: b - a])",
    "else:",
    "    add(x[t * moves, a:b], row[: b - a])",
]
"""What recurrent neurons hear at a step, before it."""
_PUSHED = [
    f"k = t & {AHEAD - 1}",
    "if t == gz.shape[0] - 1:",
    "    copy(last[a:b], total[: b - a])",
    "else:",
    f"    call_address(push, rows[t + 1 & {AHEAD - 1}, : b - a], weights, total[: b - a])",
    "add(gz[t, a:b], total[: b - a])",
]
"""The gradient of the output of recurrent neurons, before a step back."""
_GROWN = [
    "if learns and k == 0:",
    *_over_steps(
        "call_address(grow, first[a:b] if s == 0 else z[s - 1, a:b], rows[s - t, : b - a], gw, active)"
    ),
    "if learns_in and k == 0:",
    *_over_steps("call_address(grow, x[s * moves, c:d], rows[s - t, : b - a], gw_in, active)"),
    "if asked and weighted and k == 0:",
    *_over_steps("call_address(push, rows[s - t, : b - a], weights_in, gx[s, c:d])"),
    "elif asked and not weighted:",
    "    copy(rows[k, : b - a], gx[t, a:b])",
]
"""The gradients of weights and of the input, after a step back."""


_DOUBLE = {"before_z": "silent[a:b] if t == 0 else z[t - 1, a:b]", "before_k0": "k0[t, a:b]"}
"""What a step back reads of the step before; of what was saved it is the row that is one further, because there
is one before the first step's."""


class _Aside(NamedTuple):
    """What a time step does for events beside its program.

    Attributes:
        arguments: names of what it is given for that.
        first: a line before all neurons.
        begin, end: lines for a neuron, before its program and after it.
        result: what the function returns.
        past: what is written past the caches.
    """

    arguments: Sequence[str] = ()
    first: str = ""
    begin: Sequence[str] = ()
    end: Sequence[str] = ()
    result: str = ""
    past: Sequence[str] = ()


def forward_loop(traced: Traced, recurrent: bool, past: bool = False) -> str:
    """The function ``forward``: arrays of the input, of states and parameters, of the output, of what is kept,
    and the rest.

    Parameters:
        traced: the step, its numbers lifted.
        recurrent: whether the output of each step returns through weights.
        past: whether what is kept goes past the caches.
    """
    program = traced.forward
    states = [n for n in program.inputs if n.startswith("s")]
    parameters = [n for n in program.inputs if n.startswith("p")]
    kept = [f"k{k}" for k in range(len(traced.saved))]
    rows = ["x", *states, *parameters, "z", *kept]
    written = ["z", *states, *kept]
    events = [f"e{k}" for k in range(len(traced.events))]
    more = _Aside()
    if events:
        mark = literal(program.outputs[-1 if traced.marked else 0])
        more = _Aside(first="word = 0", end=[f"word |= at_place(bits_of({mark}), j)"], result="word")
    more = more._replace(past=kept[: len(kept) - traced.bytes] if past else ())
    inner = _inner("forward", [*rows, *events], program, [*written, *events], more=more)
    numbers = numbers_of(program)
    given = ["x[t * moves, a:b]", *(f"{n}[a:b]" for n in states + parameters), "z[t, a:b]"]
    given += [f"{n}[t, a:b]" for n in kept]
    given += [f"events[{k}, {_ROOM}]" for k in range(len(events))]
    if recurrent:
        given[0] = "row[: b - a]"
    steps, before, after = [_call("forward", given, program)], "", []
    near = ["z", *(name for name in kept if name not in more.past)]
    ahead = [] if recurrent else _asked_for({"x": "(t + 1) * moves"}, dict.fromkeys(near, "t + 1"))
    if events:
        # a word is packed one word later: by then it is known how often the loop over its bits goes round
        pack = "found = pack(word, events, there, squeezed, found)"
        steps = ["before = word", f"word = {steps[0]}", pack.replace("word", "before")]
        words = _in_words([*_SIDES, *ahead, *steps, "masks[to] = word", "to += 1"])
        steps = [
            "found = word = 0",
            *words,
            *_SIDES,
            pack,
            f"at = append(squeezed, found, packed, at, {past})",
        ]
        rows += _EVENTS
        before = "r = at = to = 0"
        noted = "a", "b", "at", "to", f"{LANES - 1 if past else 0}"
        after = [f"blocks[r, {k}] = {v}" for k, v in enumerate(noted)]
        after += ["r += 1"]
    elif not recurrent:
        steps = _in_words([*ahead, *steps])
    over = "range(z.shape[0])"
    if not recurrent:
        after += ["written()"] if past else []
        return inner + _loop("forward", [*rows, "moves"], numbers, over, steps, [], after, before)
    steps = [*_HEARD, *steps]
    rows += ["first", "columns", "columns_in", "row", "drive", "active", *PRODUCTS["forward"], "weighted"]
    arguments = [*rows, *_SIZES, "moves"]
    return inner + _loop("forward", arguments, numbers, over, steps, [_INPUTS], after, before)


def backward_loop(traced: Traced, recurrent: bool) -> str:
    """The function ``backward``: arrays of the output's gradient, of what was kept, of the input's gradient, of
    the gradients of states, of parameters and their gradients, and the rest.

    Parameters:
        traced, recurrent: as for :func:`forward_loop`.
    """
    program = traced.backward
    states = [n for n in program.inputs if n.startswith("g") and n != "gz"]
    parameters = [n for n in program.inputs if n.startswith("p")]
    kept = [f"k{k}" for k in range(len(traced.saved))]
    events = [f"b{k}" for k in range(len(traced.between.outputs))]
    sums = [f"gp{k}" for k in range(len(program.outputs) - 1 - len(states))]
    output = ["z"] if traced.uses_output or recurrent else []
    timed = ["gz", *output, *kept, "gx"]
    double = {} if traced.slot is None else _DOUBLE
    rows = [*timed, *double, *states, *parameters, *sums]
    arguments = [*timed, *(["silent"] if double else []), *states, *parameters, *sums]
    program, later = _kept_in_place(program, states) if events and not recurrent else (program, [])
    more = _Aside()
    if events and not traced.marked:  # its bits are nearer than the output itself
        more = _Aside(["word"], begin=["z = where(has_bit(word, j), F(1.0), F(0.0))"])
        rows.remove("z")
    inner = _inner("backward", [*rows, *events], program, ["gx", *states], sums, more)
    numbers = numbers_of(program)
    own = {
        name: f"next_{name}[: b - a]" if name in later else f"{name}[a:b]"
        for name in (*states, *parameters, *sums)
    }
    places = {name: f"{name}[t, a:b]" for name in timed} | own | double
    places |= {"k0": "k0[t + 1, a:b]"} if double else {}
    if recurrent:
        places |= {"gz": "total[: b - a]", "gx": "rows[k, : b - a]"}
    given = [places[name] for name in rows]
    given += [*(f"events[{k}, {_ROOM}]" for k in range(len(events))), *more.arguments]
    steps = [_call("backward", given, program)]
    read = ["gz", *(output if traced.marked or not events else []), *kept]
    ahead = [] if recurrent else _asked_for(dict.fromkeys(read, "t - 1"), {"gx": "t - 1"})
    if events:
        packed = [f"e{k}" for k in range(len(traced.events))]
        inner += _inner("between", [*packed, *events], traced.between, events)
        numbers += numbers_of(traced.between)
        starts = [f"{len(packed)} * at + {k} * filled + n" for k in range(len(packed))]
        rooms = [f"packed[{start} : {start} + {LONG}]" for start in starts]
        rooms += [f"squeezed[{k}, n : n + {LONG}]" for k in range(len(events))]
        between = [f"for n in range(0, found, {LONG}):", f"    {_call('between', rooms, traced.between)}"]
        place = ["begun, found = back(b - a, masks, end)", "filled = found + (-found & fill)"]
        place += ["to, at = begun, at - filled"]
        # what is read backward in parts the CPU does not see coming
        size = f"{len(packed)} * filled"
        place += [f"for n in range(0, {size}, {WORD}):"]
        place += [f"    ask_to_read(packed, {len(packed)} * at - {size} + n)"]
        # a word is unpacked one word ahead: a vector that is read right behind its numbers waits for them
        first = "column = unpack(masks[to], squeezed, 0, events, here)"
        second = "column = unpack(masks[to + 1] if v < b else 0, squeezed, column, events, there)"
        words = _in_words([*_SIDES, *ahead, second, "word = masks[to]", *steps, "to += 1"])
        steps = [*place, *between, *_SIDES, first, *words, "end = begun"]
        arguments += _EVENTS
    elif not recurrent:
        steps = _in_words([*ahead, *steps])
    over = "range(gz.shape[0] - 1, -1, -1)"
    if not recurrent:
        nexts = [f"next_{name} = {name}[a:b] if t == gz.shape[0] - 1 else gz[t + 1, a:b]" for name in later]
        after = [f"copy(gz[0, a:b], {name}[a:b])" for name in later]
        steps = [*nexts, *steps]
        return inner + _loop("backward", arguments, numbers, over, steps, (), after, packed=bool(events))
    steps = [*_PUSHED, *steps, *_GROWN]
    arrays = ["last", "first", "weights", "x", "weights_in"]
    arrays += ["gw", "gw_in", "g_first", "rows", "total", "active"]
    arguments += [*arrays, *PRODUCTS["backward"], "weighted", "learns", "learns_in", "asked", *_SIZES, "moves"]
    after = ["call_address(push, rows[0, : b - a], weights, g_first[a:b])"]
    return inner + _loop("backward", arguments, numbers, over, steps, [_INPUTS], after, packed=bool(events))


def _kept_in_place(program: Program, states: Sequence[str]) -> tuple[Program, list[str]]:
    """The program without writing states that become the gradient of the output, and their names: one step on
    they are where that came from."""
    first, *ends = program.outputs
    later = [name for name, value in zip(states, ends, strict=False) if value == "gz"]
    still = [name if name in later else value for name, value in zip(states, ends, strict=False)]
    return program._replace(outputs=(first, *still, *ends[len(states) :])), later


def _inner(
    name: str,
    rows: list[str],
    program: Program,
    written: list[str],
    sums: Sequence[str] = (),
    more: _Aside = _Aside(),
) -> str:
    """One time step of a block of neurons."""
    arguments = ", ".join([*(f"{n}_" for n in rows), *more.arguments, *numbers_of(program)])
    body = [*more.begin, *_body(program, rows, written, sums, more.past), *more.end]
    waits = any(line.operator in _LONG for line in program.lines)
    registers = ", REGISTERS, 1" if name == "forward" else ", REGISTERS_BACK"
    over = f"lanes({rows[0]}_.shape[0]{registers if waits else ''})"
    lines = [*([more.first] if more.first else []), f"for j in {over}:"]
    lines += [f"    {line}" for line in body]
    lines += [f"return {more.result}"] if more.result else []
    inside = "\n".join(f"    {line}" for line in lines)
    return f"\n\ndef _{name}({arguments}):\n{inside}\n"


def _body(
    program: Program, rows: list[str], written: list[str], sums: Sequence[str], past: Sequence[str]
) -> list[str]:
    """The program for one neuron; it loads all that it reads first, because states are written in place."""
    used = {a for line in program.lines for a in line.arguments} | set(program.outputs)
    lines = [f"{name} = {name}_[j]" for name in program.inputs if name in used and name in rows]
    lines += [f"{line.name} = {expression(line)}" for line in program.lines]
    for target, value in zip(written, program.outputs, strict=False):
        if value != target or value not in program.inputs:  # a state that stays is there
            way = "put_past({}_, j, {})" if target in past else "{}_[j] = {}"
            lines.append(way.format(target, literal(value)))
    for target, value in zip(sums, program.outputs[len(written) :], strict=False):
        lines.append(f"{target}_[j] += {literal(value)}")
    return lines


def _call(name: str, given: Sequence[str], program: Program) -> str:
    return f"_{name}({', '.join([*given, *numbers_of(program)])})"


def _in_words(lines: Sequence[str]) -> list[str]:
    """Lines for the neurons ``a:b``, a word of them at a time, ``u:v``.

    So the next rows are asked for little by little, what is packed is still in the first cache, and few writes
    wait for memory with those of the output.
    """
    own = [line.replace("a:b", "u:v").replace(": b - a]", "u - a : v - a]") for line in lines]
    return [
        f"whole = b - (b - a & {WORD - 1})",
        f"for u in range(a, whole, {WORD}):",
        *(f"    {line}" for line in (f"v = u + {WORD}", *own)),
        "if whole < b:",
        *(f"    {line}" for line in ("u, v = whole, b", *own)),
    ]


def _asked_for(read: Mapping[str, str], written: Mapping[str, str]) -> list[str]:
    """Ask for rows that the next step works on: the CPU does not see that a block goes on a row further."""
    lines = [f"ask_to_read({name}, {row}, u)" for name, row in read.items()]
    return [*lines, *(f"ask_to_write({name}, {row}, u)" for name, row in written.items())]


def _loop(
    name: str,
    arguments: list[str],
    numbers: list[str],
    over: str,
    steps: Sequence[str],
    begin: Sequence[str] = (),
    after: Sequence[str] = (),
    before: str = "",
    packed: bool = False,
) -> str:
    """All blocks of neurons ``a:b``, and within each all time steps.

    Parameters:
        steps: lines of a time step.
        begin, after: lines before the first step of a block and after the last one.
        before: a line before the first block.
        packed: whether the blocks are those of ``blocks``, in the order in which spikes were packed.
    """
    signature = ", ".join([*arguments, "start", "stop", "block", *numbers])
    inside = "\n".join(f"            {line}" for line in steps)
    ahead, behind = ("".join(f"\n        {line}" for line in more) for more in (begin, after))
    blocks = "for a in range(start, stop, block):\n        b = min(a + block, stop)"
    if packed:
        blocks = "for r in range(start, stop):\n        a, b, at, end, fill = blocks[r]"
    return f"""


def {name}({signature}):
{f"    {before}" if before else ""}
    {blocks}{ahead}
        for t in {over}:
{inside}{behind}
"""
