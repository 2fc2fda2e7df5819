"""Compiles kernels of three neurons, and of one's adjoint, for an H100, which needs no GPU; Triton must not be
interpreting.

``python -m tests.engine.hopper`` prints how many multiplications each joins with an addition.
"""

import json
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from snnlib.engine import trace
from snnlib.engine.cache import load
from snnlib.engine.emit import triton as emit_triton
from snnlib.engine.later import later_step
from snnlib.engine.plan import plan, work_of
from snnlib.functional import (
    LIFExParameters,
    LIFParameters,
    LIFRefracParameters,
    lif_ex_feed_forward_step,
    lif_feed_forward_step,
    lif_refrac_feed_forward_step,
)

PROCESSORS = 132


class Module(NamedTuple):
    """Kernels of a step.

    Attributes:
        bits: which of their arrays are bytes.
        work: of the forward and the backward step.
    """

    loops: Any
    bits: list[str]
    work: dict[str, int]


def module(
    step, p, dtype: torch.dtype, recurrent: bool, learned: tuple[str, ...] = ("tau_mem_inv", "v_th")
) -> Module:
    given = p._replace(**dict.fromkeys(learned))
    traced = trace.trace(step, given, learned, learned, 0.001, dtype, trace.KEEPS["gpu"])
    text = emit_triton.emit(traced, step.__name__, dtype, recurrent).text
    kinds = enumerate(traced.types_of_saved(dtype))
    bits = [f"k{k}_" for k, kind in kinds if kind != dtype]
    work = {way: work_of(getattr(traced, way)) for way in ("forward", "backward")}
    return Module(load(text, f"triton-{triton.__version__}"), bits, work)


def assembled(made: Module, way: str, shape: tuple[int, ...], recurrent: bool, dtype: torch.dtype) -> str:
    """The kernel that would be launched, in PTX, after it went to machine code as well."""
    form = plan(torch.Size(shape), recurrent, dtype, PROCESSORS, made.work[way])
    kernel = getattr(made.loops, f"{way}_shared" if form.shared else way)
    kinds = dict.fromkeys(kernel.arg_names, f"*fp{dtype.itemsize * 8}") | dict.fromkeys(made.bits, "*u8")
    kinds["meeting_"] = "*i32"
    kinds |= dict.fromkeys(
        ("own", "offset", "samples", "size", "steps", "first", "last", "moves", "row"), "i32"
    )
    kinds |= dict.fromkeys(form.constants, "constexpr")
    signature = {name: kinds[name] for name in kernel.arg_names}
    code = triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=form.constants),
        target=GPUTarget("cuda", 90, 32),
        options=form.options,
    )
    assert len(code.asm["cubin"]) > 0
    return str(code.asm["ptx"])


def main() -> None:
    single, double = torch.float32, torch.float64
    lif, lif_ex = (lif_feed_forward_step, LIFParameters()), (lif_ex_feed_forward_step, LIFExParameters())
    plain, heard = (module(*lif, single, recurrent) for recurrent in (False, True))
    exponential, long = module(*lif_ex, single, False), module(*lif, double, True)
    lif_refrac = lif_refrac_feed_forward_step, LIFRefracParameters()
    bits, bits_heard = (module(*lif_refrac, single, recurrent) for recurrent in (False, True))
    exact = later_step(lif_feed_forward_step), LIFParameters(method="adjoint")
    slots, slots_heard = (module(*exact, single, recurrent, ("v_th",)) for recurrent in (False, True))
    found = {}
    for way in ("forward", "backward"):
        found[way] = assembled(plain, way, (100, 16, 512), False, single)
        found[f"{way}, large"] = assembled(plain, way, (100, 1024, 512), False, single)
        found[f"{way} with exp"] = assembled(exponential, way, (100, 16, 512), False, single)
        found[f"{way} with bits"] = assembled(bits, way, (100, 16, 512), False, single)
        found[f"{way} with slots"] = assembled(slots, way, (100, 16, 512), False, single)
        found[f"{way} recurrent, with slots"] = assembled(slots_heard, way, (100, 64, 128), True, single)
        found[f"{way} shared, with slots"] = assembled(slots_heard, way, (100, 64, 300), True, single)
        found[f"{way} shared, with bits"] = assembled(bits_heard, way, (100, 64, 300), True, single)
        found[f"{way} recurrent"] = assembled(heard, way, (100, 64, 128), True, single)
        found[f"{way} recurrent, float64"] = assembled(long, way, (100, 64, 33), True, double)
        found[f"{way} shared"] = assembled(heard, way, (100, 64, 300), True, single)
        found[f"{way} shared, large"] = assembled(heard, way, (100, 2048, 300), True, single)
        found[f"{way} shared, float64"] = assembled(long, way, (100, 64, 300), True, double)
    print(json.dumps({name: ptx.count("fma.rn") for name, ptx in found.items()}))


if __name__ == "__main__":
    main()
