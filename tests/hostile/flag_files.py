"""Files of flags by strangers."""

from collections.abc import Iterator

from tests.hostile.damage import trap

__all__ = ["flag_files"]


def flag_files() -> Iterator[tuple[str, bytes]]:
    """Names and contents for ``--flagfile=flags.txt``, which is also what ``--resume`` reads."""
    yield "unknown", b"--no_such_flag=1\n"
    yield "positional", b"text\n"
    yield "bad_value", b"--epochs=many\n"
    yield "out_of_bounds", b"--epochs=0\n"
    yield "nan", b"--learning_rate=nan\n"
    yield "digits", b"--epochs=" + b"9" * 10_000 + b"\n"
    yield "no_value", b"--epochs\n"
    yield "itself", b"--flagfile=flags.txt\n"
    yield "itself_in_a_circle", b"--flagfile=./flags.txt\n"
    yield "a_folder", b"--flagfile=.\n"
    yield "another_that_is_missing", b"--flagfile=none.txt\n"
    yield "another_without_a_name", b"--flagfile\n"
    yield "no_utf8", b"--epochs=\xff\xfe\n"
    yield "zeros", bytes(100)
    yield "pickle", trap()
    yield "an_archive", b"PK\x03\x04" + bytes(range(256))
    yield "a_switch_with_a_value", b"--fast=perhaps\n"
    yield "a_wrong_choice", b"--optimizer=sgd2\n"
    yield "three_dashes", b"---epochs=1\n"
    yield "text_after_dashes", b"-- --epochs=1\n"
    yield "much_text", b"lorem ipsum\n" * 10_000
    yield "lists_of_nothing", b"--channels=\n"
    yield "lists_of_text", b"--channels=a,b\n"
