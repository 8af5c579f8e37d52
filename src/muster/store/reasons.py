"""Why a database refused, in words an operator can act on."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from muster.store.place import Place

if TYPE_CHECKING:
    import psycopg

_REASON_LENGTH = 240

# A disk with less than this cannot take a page and its journal, whatever the file system still calls free.
_FULL_BELOW_BYTES = 64 << 10

_OF_SQLSTATE = {
    "57014": "a statement took longer than the store's statement_timeout_s",
    "25P03": "the transaction stood idle for too long",
    "53100": "the disk is full",
    "25006": "it is read-only (a standby, or fenced by default_transaction_read_only)",
    "53300": "it has too many connections",
    "55P03": "the database was locked for too long",
    "40P01": "another writer was in the way",
    "40001": "another writer was in the way",
    "57P01": "it is shutting down",
    "57P02": "it crashed and is recovering",
    "57P03": "it is starting or stopping and takes no connections yet",
}


def reason(error: BaseException, place: Place) -> str:
    """Return one line, without the password."""
    if isinstance(error, sqlite3.Error):
        said = _of_sqlite(error, place.file)
    elif _is_of_psycopg(error):
        said = _of_postgresql(error)
    else:
        said = str(error) or type(error).__name__
    line = (said.strip().splitlines() or [type(error).__name__])[0].strip()
    if place.password:
        line = line.replace(place.password, "***")
    return line if len(line) <= _REASON_LENGTH else f"{line[:_REASON_LENGTH]}…"


def _of_sqlite(error: sqlite3.Error, file: Path | None) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_FULL:
            return "the disk is full"
        case sqlite3.SQLITE_READONLY:
            return "it is read-only"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "the database was locked for too long by another writer"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return f"the file is damaged ({error})"
        case _:
            # "disk I/O error" and "unable to open database file" are what SQLite says of a full disk, too, when
            # it needed the space for its own side files.
            return _of_disk(file) or str(error)


def _of_disk(file: Path | None) -> str | None:
    if file is None:
        return None
    if not file.parent.is_dir():
        return f"there is no directory {file.parent}"
    try:
        disk = os.statvfs(file.parent)
    except OSError as e:
        return e.strerror
    if disk.f_bavail * disk.f_frsize < _FULL_BELOW_BYTES:
        return "the disk is full"
    # Root may write anywhere; for everybody else this is the commonest cause.
    return None if os.access(file.parent, os.W_OK) else f"directory {file.parent} may not be written"


def _is_of_psycopg(error: BaseException) -> TypeGuard[psycopg.Error]:
    # A member on SQLite never loads the driver, which is a tenth of its memory; nor can it meet its errors then.
    driver = sys.modules.get("psycopg")
    return driver is not None and isinstance(error, driver.Error)


def _of_postgresql(error: psycopg.Error) -> str:
    import psycopg

    if error.sqlstate in _OF_SQLSTATE:
        return _OF_SQLSTATE[error.sqlstate]
    text = str(error)
    if "session is read-only" in text or "session is not read-only" in text or "server is in hot standby" in text:
        return "no host takes writes: each that answers is a standby, or fenced by default_transaction_read_only"
    if "Connection refused" in text or ("No such file or directory" in text and "socket" in text):
        return "connection refused"
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return "no connection in time"
    if error.sqlstate is None and ("closed" in text or "terminat" in text or "lost" in text):
        return "the connection is gone"
    return text
