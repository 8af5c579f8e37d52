from __future__ import annotations

import sqlite3

import psycopg
import pytest

from muster.kernel.secrets import Secret
from muster.store.place import Place
from muster.store.reasons import reason

POSTGRESQL = Place.parsed(Secret("postgresql://u:hunter2@db/d"))


def test_only_the_first_line_is_said_and_never_the_password() -> None:
    said = reason(psycopg.OperationalError("could not use hunter2\n\tIs the server running?"), POSTGRESQL)
    assert said == "could not use ***"


def test_a_reason_is_bounded() -> None:
    assert len(reason(psycopg.OperationalError("x" * 10_000), POSTGRESQL)) < 300


def test_a_failure_that_says_nothing_is_named_by_its_kind() -> None:
    assert reason(psycopg.OperationalError(), POSTGRESQL) == "OperationalError"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (psycopg.errors.DiskFull("x"), "the disk is full"),
        (
            psycopg.errors.ReadOnlySqlTransaction("x"),
            "it is read-only (a standby, or fenced by default_transaction_read_only)",
        ),
        (
            psycopg.OperationalError("connection failed: session is read-only\nMultiple connection attempts failed."),
            "no host takes writes: each that answers is a standby, or fenced by default_transaction_read_only",
        ),
        (psycopg.errors.AdminShutdown("x"), "it is shutting down"),
        (psycopg.errors.DeadlockDetected("x"), "another writer was in the way"),
        (psycopg.OperationalError("connection failed: port 1 failed: Connection refused"), "connection refused"),
        (psycopg.OperationalError("server closed the connection unexpectedly"), "the connection is gone"),
        (psycopg.errors.ConnectionTimeout("x"), "no connection in time"),
    ],
)
def test_each_failure_of_postgresql_has_its_own_words(error: psycopg.Error, said: str) -> None:
    assert reason(error, POSTGRESQL) == said


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (sqlite3.SQLITE_FULL, "the disk is full"),
        (sqlite3.SQLITE_READONLY, "it is read-only"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "the database was locked for too long by another writer"),
        (sqlite3.SQLITE_CANTOPEN, "there is no directory /nowhere"),
    ],
)
def test_each_failure_of_sqlite_has_its_own_words(code: int, said: str) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    assert reason(error, Place.parsed(Secret("sqlite:////nowhere/store.db"))) == said
