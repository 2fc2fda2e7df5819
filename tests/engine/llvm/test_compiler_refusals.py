"""What is not of the language of the loops is refused with its place."""

from typing import Any

import pytest
import torch

from tests.engine.compiled import integers, ready


def _float_as_integer(out):
    count = 1
    count = out[0]
    out[1] = count


def _unknown_word(out):
    with out:
        pass


def _star(out):
    first, *_ = 1, 2
    out[0] = first


def _untyped(out):
    number = 0.5
    out[0] = number


def _named(out):
    out[0] = min(out[0], out[1], key=abs)


def _every_other(out):
    out[0:2:2] = 0


def _otherwise(out):
    for j in range(2):
        out[j] = 0
    else:
        out[0] = 1


def _inverted(out, places):
    places[0] = ~places[0]


def _attribute(out):
    out.shape += 1


def _too_early(out):
    out[0] = later  # noqa: F821
    later = 1  # noqa: F841


def _lost(out, places):
    places[0] = out[0]


def _no_such_name(out):
    out[0] = nowhere(out)  # noqa: F821


@pytest.mark.parametrize(
    ("function", "arrays", "error", "words"),
    [
        (_float_as_integer, (torch.zeros(2),), TypeError, r"count was \['i64'\] before"),
        (_unknown_word, (torch.zeros(2),), AttributeError, "_run_with"),
        (_star, (torch.zeros(2),), TypeError, r"\*_ is nothing to assign to"),
        (_untyped, (torch.zeros(2),), TypeError, r"0.5 may be float32 or float64"),
        (_named, (torch.zeros(2),), TypeError, "arguments have no names"),
        (_every_other, (torch.zeros(2),), TypeError, "a slice has no step"),
        (_otherwise, (torch.zeros(2),), TypeError, "a loop has no else"),
        (_inverted, (torch.zeros(2), integers(0)), TypeError, "there is - and not"),
        (_attribute, (torch.zeros(2),), TypeError, "can only concatenate tuple"),
        (_too_early, (torch.zeros(2),), KeyError, "later has no value yet"),
        (_lost, (torch.zeros(2), integers(0)), TypeError, "cannot be i64"),
        (_no_such_name, (torch.zeros(2),), KeyError, "nowhere"),
    ],
)
def test_what_is_not_of_the_language_is_refused(function: Any, arrays: Any, error: Any, words: str):
    with pytest.raises(error, match=words) as found:
        ready(function, arrays)
    assert found.value.__notes__[-1].startswith(f"in {function.__name__}: ")
