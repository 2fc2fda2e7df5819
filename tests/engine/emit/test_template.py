"""Source as a template."""

import pytest

from snnlib.engine.emit.template import filled


def test_lines_of_a_block_are_as_far_to_the_right_as_its_name():
    text = filled("for {x} in y:\n    <body>\n<rest>\nend\n", {"body": ["a:\n    b", "c"], "rest": []}, x="k")
    assert text == "for k in y:\n    a:\n        b\n    c\nend\n"


def test_a_block_that_is_not_given_is_an_error():
    with pytest.raises(KeyError, match="body"):
        filled("<body>", {})
