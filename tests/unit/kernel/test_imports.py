from __future__ import annotations

import contextlib
import gc

import pytest

from muster.kernel.imports import importing


class Kept:
    """What is looked at like any object that can be in a circle."""


def is_looked_at(one: object) -> bool:
    return any(one is other for other in gc.get_objects())


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_looked_for_meanwhile_nor_afterwards_among_what_was_made(enabled: bool) -> None:
    was = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        with contextlib.suppress(ImportError), importing():
            assert not gc.isenabled()
            made = Kept()
            assert is_looked_at(made)
            raise ImportError("as it happens")
        assert gc.isenabled() == enabled
        assert not is_looked_at(made)
        assert is_looked_at(after := Kept()), after
    finally:
        gc.enable() if was else gc.disable()
