from __future__ import annotations

import pytest

from muster.kernel import errors
from muster.kernel.errors import MusterError

NAMED = {
    "Conflict": 409,
    "NotFound": 404,
    "Rejected": 400,
    "Denied": 403,
    "Unavailable": 503,
    "Unsupported": 501,
    "Misconfigured": 500,
}


@pytest.mark.parametrize(("name", "status"), NAMED.items())
def test_each_failure_has_its_status(name: str, status: int) -> None:
    kind = getattr(errors, name)
    assert kind.status == status
    assert issubclass(kind, MusterError)
    assert f"{name} " in (errors.__doc__ or "")


def test_only_an_unavailable_other_side_may_be_asked_again() -> None:
    assert [n for n in NAMED if getattr(errors, n).retryable] == ["Unavailable"]


def test_a_failure_says_its_sentence_or_at_least_its_name() -> None:
    assert str(errors.Conflict("a is b")) == "a is b"
    assert str(errors.Conflict()) == "Conflict"
