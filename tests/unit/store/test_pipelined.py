"""Texts of both databases, as PostgreSQL's driver takes them; the rest is asked of a real server in ``contract/``."""

from __future__ import annotations

from muster.store.pipelined import _translated
from muster.store.writing import Change


def test_parameters_are_written_as_the_driver_has_them_and_casts_stay() -> None:
    change = Change("UPDATE documents SET version = :version, changed_at = {now} WHERE name = :its_name AND a2 = :a2")
    assert _translated(change.of("postgresql")) == (
        "UPDATE documents SET version = %(version)s,"
        " changed_at = extract(epoch from clock_timestamp())::float8 WHERE name = %(its_name)s AND a2 = %(a2)s"
    )
