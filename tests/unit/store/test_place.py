from __future__ import annotations

import pytest

from muster.kernel.errors import Misconfigured
from muster.kernel.secrets import Secret
from muster.store.place import Place


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://u@h/d",
        "postgresql://u@h",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?uri=true",
        "sqlite+pysqlite:////tmp/x",
        "postgresql://u:hunter2@h:port/d",
    ],
)
def test_a_url_of_another_kind_is_misconfigured_and_not_repeated(url: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        Place.parsed(Secret(url))
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_place_shows_where_it_is_but_no_password() -> None:
    place = Place.parsed(Secret("postgresql://muster:hunter2@db:5433/cluster?sslmode=require"))
    assert place.shown == "postgresql muster@db:5433/cluster"
    assert "hunter2" not in repr(place)
    assert place.password == "hunter2"


def test_a_place_on_a_socket_shows_its_directory() -> None:
    assert Place.parsed(Secret("postgresql://u@/d?host=/run/postgresql")).shown == "postgresql u@/run/postgresql/d"


def test_a_password_beside_the_url_wins_and_may_hold_anything() -> None:
    place = Place.parsed(Secret("postgresql://u:old@db/d"), Secret("p@ss/w:rd"))
    assert place.password == "p@ss/w:rd"


def test_a_relative_sqlite_path_becomes_whole() -> None:
    place = Place.parsed(Secret("sqlite:///x.db"))
    assert place.file is not None
    assert place.file.is_absolute()


def test_the_urls_own_connection_arguments_are_left_to_it() -> None:
    place = Place.parsed(Secret("postgresql://u@db/d?application_name=mine&options=-c%20geqo%3Doff"))
    arguments = place.connect_arguments(connect_timeout_s=2.0, statement_timeout_s=0.5)
    assert "application_name" not in arguments
    assert arguments["options"].startswith("-c geqo=off -c statement_timeout=500 ")
    assert arguments["tcp_user_timeout"] == 2500
