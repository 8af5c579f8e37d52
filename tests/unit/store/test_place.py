from __future__ import annotations

import pytest
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from muster.kernel.errors import Misconfigured
from muster.kernel.secrets import Secret
from muster.store.place import Parts, Place


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
        "postgresql://u:hunter2@h1,h2:port/d",
        "postgresql://u:hunter2@h1,h2:0/d",
        "postgresql://u:hunter2@h1,h2:65536/d",
        "postgresql://u:hunter2@h1,/d",
        "postgresql://u:hunter2@,/d",
        "postgresql://u:hunter2@h1,h2 h3/d",
        "postgresql://u:hunter2@h1,[::1/d",
        "postgresql://u:hunter2@h1,h2",
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


@pytest.mark.parametrize(
    ("url", "shown", "secret"),
    [
        ("postgresql://u:hunter2@h/d", "postgresql://u:***@h/d", True),
        ("postgresql://u:hunter2?hunter2@h/d", "postgresql://u:***@h/d", True),
        (
            "postgresql://u:hunter2@h1,h2:5433/d?sslmode=require",
            "postgresql://u:***@h1,h2:5433/d?sslmode=require",
            True,
        ),
        ("postgresql://h/d?user=u&password=hunter2", "postgresql://h/d?user=u&password=***", True),
        ("postgresql://h/d?pass%77ord=hunter2&user=u", "postgresql://h/d?pass%77ord=***&user=u", True),
        ("postgresql://u@h/d?sslpassword=hunter2", "postgresql://u@h/d?sslpassword=***", True),
        ("postgresql://u@h:5433/d?sslmode=verify-full", "postgresql://u@h:5433/d?sslmode=verify-full", False),
        ("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db", False),
    ],
)
def test_a_url_is_shown_whole_less_its_passwords(url: str, shown: str, secret: bool) -> None:
    place = Place.parsed(Secret(url))
    assert (place.shown_url, place.holds_secret) == (shown, secret)
    assert "hunter2" not in repr(place)


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


def test_several_hosts_are_read_shown_and_asked_in_their_order() -> None:
    place = Place.parsed(Secret("postgresql://u:p@h1,h2:5433,[2001:db8::1]:5432/db?target_session_attrs=read-write"))
    assert place.hosts == (("h1", 5432), ("h2", 5433), ("2001:db8::1", 5432))
    assert place.shown == "postgresql u@h1,h2:5433,[2001:db8::1]/db"
    arguments = place.connect_arguments(connect_timeout_s=2.0, statement_timeout_s=5.0)
    assert (arguments["host"], arguments["port"]) == ("h1,h2,2001:db8::1", "5432,5433,5432")
    # A unit has time to find out that all but the last are gone.
    assert place.connect_limit_s(2.0) == 6.0
    assert arguments["tcp_user_timeout"] == 11_000
    assert (place.password, place.url.database, place.url.query["target_session_attrs"]) == ("p", "db", "read-write")
    assert Place.parsed(Secret("postgresql://u@h/db")).connect_limit_s(2.0) == 2.0


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p,w@h/d", "h"),
        ("postgresql://u:p,w@h1,h2/d", "h1,h2"),
        ("postgresql://h1,h2/d", "h1,h2"),
        ("postgresql://u@h/d?application_name=a,b", "h"),
        ("postgresql://u@/d?host=h1,h2", "h1,h2"),
    ],
)
def test_a_comma_elsewhere_names_no_second_host(url: str, hosts: str) -> None:
    assert Place.parsed(Secret(url)).shown.rpartition("@")[2].removeprefix("postgresql ") == f"{hosts}/d"


@pytest.mark.parametrize(
    ("url", "unverified"),
    [
        ("postgresql://u@db.example.net/d", ("db.example.net",)),
        ("postgresql://u@192.0.2.5:5433/d?sslmode=require", ("192.0.2.5",)),
        ("postgresql://u@db.example.net/d?sslmode=verify-ca", ("db.example.net",)),
        ("postgresql://u@h1,127.0.0.1,h2/d", ("h1", "h2")),
        ("postgresql://u@/d?host=h1:5432&host=h2", ("h1:5432", "h2")),
        ("postgresql://u@localhost/d?hostaddr=192.0.2.5", ("192.0.2.5",)),
        ("postgresql://u@127.evil.example/d", ("127.evil.example",)),
        ("postgresql://u@db.example.net/d?sslmode=verify-full", ()),
        ("postgresql://u@h1,h2/d?sslmode=verify-full&sslrootcert=/etc/muster/db-ca.pem", ()),
        ("postgresql://u@localhost/d", ()),
        ("postgresql://u@127.0.0.9:5433/d", ()),
        ("postgresql://u@[::1]/d", ()),
        ("postgresql:///d", ()),
        ("postgresql://u@/d?host=/run/postgresql", ()),
        ("postgresql://u@/d?host=127.0.0.1:5433&host=localhost", ()),
        ("sqlite:////var/lib/muster/store.db", ()),
    ],
)
def test_who_could_be_somebody_else_is_named(url: str, unverified: tuple[str, ...]) -> None:
    assert Place.parsed(Secret(url)).unverified == unverified


_URLS = (
    "postgresql://u:p@h:5433/d?sslmode=require&options=-c%20a%3Db", "postgresql://u:p/w?x@h/d", "postgresql://u%40x:p%2Fw@h/d",
    "postgresql://u@x@h/d", "postgresql://u:@h/d", "postgresql://@h/d", "postgresql:///d", "postgresql://h", "postgresql://",
    "postgresql://u@[::1]:5433/d", "postgresql://u@[::1/d", "postgresql://u@h:/d", "postgresql://u@h:1x/d", "postgresql:/d",
    "postgresql://u@/d?host=/run/postgresql", "postgresql://u@/d?host=h1,h2&port=1,2", "postgresql://u@/d?host=h1:1&host=h2",
    "postgresql://u@/d?host=h1:1", "postgresql://u@/d?host=h1:", "postgresql://u@h/d?port=1&port=2&host=a,b", "post gresql://h/d",
    "postgresql://u@h/d?host=other&user=them&dbname=theirs", "postgresql://u@/d?host=h1&host=h2", "postgresql://u@h/a/b%20c?x=",
    "sqlite:////a%20b?x=1", "sqlite:///a#b", "sqlite://h/d", "sqlite+pysqlite:///x", "nonsense", "", "://h/d", "a b://h",
)  # fmt: skip


@pytest.mark.parametrize("text", _URLS)
def test_a_url_is_taken_apart_as_the_sql_library_does(text: str) -> None:
    try:
        theirs = make_url(text)
    except (ArgumentError, ValueError):
        with pytest.raises(ValueError, match=r"no URL|invalid literal"):
            Parts.read(text)
        return
    ours = Parts.read(text)
    assert (ours.driver, ours.user, ours.password) == (theirs.drivername, theirs.username, theirs.password)
    assert (ours.host, ours.port, ours.database) == (theirs.host, theirs.port, theirs.database)
    assert dict(ours.query) == dict(theirs.query)
    if theirs.drivername == "postgresql":
        _, arguments = PGDialectAsync_psycopg().create_connect_args(theirs)  # type: ignore[no-untyped-call]
        expected = {name: str(value) for name, value in arguments.items() if name not in ("client_encoding", "context")}
        assert {name: str(value) for name, value in ours.of_libpq().items()} == expected


def test_what_the_sql_library_gets_is_what_was_read() -> None:
    text = "postgresql://u:p%40w@h:5433/d?sslmode=require&host=a&host=b"
    place = Place.parsed(Secret(text))
    assert place.url == make_url(text).set(drivername="postgresql+psycopg")
    assert Place.parsed(Secret("sqlite:////a/b.db")).url == make_url("sqlite+aiosqlite:////a/b.db")
