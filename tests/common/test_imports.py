"""What was imported is not looked through for garbage, in a process and in those that are forked from it."""

import gc
import sys

from ser_strategies.common.imports import much_imported
from tests.programs import Program


def tell():
    sys.stdout.write(f"{gc.isenabled()} {gc.get_freeze_count()}")


def test_a_program_never_looks_for_garbage_among_its_imports():
    ended = Program(tell).wait()
    enabled, frozen = ended.out.split()
    assert enabled == "True", ended
    assert int(frozen) > 100_000


def test_few_imports_change_nothing():
    before = gc.isenabled(), gc.get_freeze_count()
    with much_imported():
        assert not gc.isenabled()
    assert (gc.isenabled(), gc.get_freeze_count()) == before
