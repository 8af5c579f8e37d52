"""What is secret goes, by kind; what is not stays."""

from __future__ import annotations

import base64
import json

import pytest

from muster.cli.support_bundle.redaction import HIDDEN, Redaction, is_secret, of_settings

S = "hunter2+Zq/7w=="


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            f"postgresql://muster:{S}@db.test/muster?sslmode=require",
            "postgresql://muster:***@db.test/muster?sslmode=require",
        ),
        ("postgresql://muster:a/b@c@db.test/x", "postgresql://muster:***@db.test/x"),
        (
            f"postgresql://db.test/muster?user=muster&password={S}&x=1",
            "postgresql://db.test/muster?user=muster&password=***&x=1",
        ),
        ("https://ghtoken123@git.test/x", "https://***@git.test/x"),
        ("user=a password='two words' host=b", "user=a password='***' host=b"),
        (f"Authorization: Bearer {S}", "Authorization: ***"),
        (f"proxy-authorization: Basic {S}\r\nHost: x", "proxy-authorization: ***\r\nHost: x"),
        ('Authorization: Digest username="a", response="b"\nx', "Authorization: ***\nx"),
        (f"sent bearer {S} to it", "sent bearer *** to it"),
        ("sent Basic YWRtaW46c2VjcmV0 to it", "sent Basic *** to it"),
        ("Cookie: _session_id=abc; other=def\nHost: x", "Cookie: ***\nHost: x"),
        ("set-cookie: a=b; Path=/", "set-cookie: ***"),
        ("X-Auth-Token: abcdef", "X-Auth-Token: ***"),
        (f"GET /register?token={S}&location=1", "GET /register?token=***&location=1"),
        (f"GET /x?next=%2Fy%3Ftoken%3D{S}", "GET /x?next=%2Fy%3Ftoken%3D***"),
        (f'{{"event": "x", "password": "{S}", "n": 1}}', '{"event": "x", "password": "***", "n": 1}'),
        (r"said {\"password\": \"p\", \"n\": 1}", r"said {\"password\": \"***\", \"n\": 1}"),
        (r'"password": "with \" quote", "n": 1', '"password": "***", "n": 1'),
        ('{"password"=>"p", "n"=>1}', '{"password"=>"***", "n"=>1}'),
        ("<password>p4ss</password>", "<password>***</password>"),
        ("host[password]=p4ss&n=1", "host[password]=***&n=1"),
        (f"key_secret: {S}", "key_secret: ***"),
        ("client_secret=abc api_key=def", "client_secret=*** api_key=***"),
        ("pkcs11:token=x;object=ca?pin-value=1234", "pkcs11:token=***;object=ca?pin-value=***"),
        ("  user admin insecure-password p4ss", "  user admin insecure-password ***"),
        ("stats auth admin:p4ss", "stats auth admin:***"),
        ("auth_pass p4ss", "auth_pass ***"),
        ("tool --api-token p4ss --verbose", "tool --api-token *** --verbose"),
        ("curl -u admin:p4ss https://x.test", "curl -u admin:*** https://x.test"),
        ('muster_x{url="https://x.test/?token=abc",n="1"} 1', 'muster_x{url="https://x.test/?token=***",n="1"} 1'),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln!", "jwt ***!"),
        ("root:$6$salt$abcdefghijklmnopqrstuvwxyz:1", "root:***:1"),
        ("PASSWORD=p4ss\nDB_PASSWORD: p4ss", "PASSWORD=***\nDB_PASSWORD: ***"),
        # BIND's, dhcpd's and nsupdate's keys; programs' options as they stand in a line and in a list.
        ('key "k" { algorithm hmac-sha256; secret "c2VzYW1l"; };', 'key "k" { algorithm hmac-sha256; secret "***"; };'),
        ("key omapi { secret c2VzYW1l==; }", "key omapi { secret ***; }"),
        ("nsupdate -y hmac-sha256:k.test:c2VzYW1l== -v", "nsupdate -y hmac-sha256:k.test:*** -v"),
        ("dig -y k.test:c2VzYW1l x.test", "dig -y k.test:*** x.test"),
        ("key hmac-sha512:k.test c2VzYW1l==", "key hmac-sha512:k.test ***"),
        (
            "ipmitool -I lanplus -U admin -P p4ss -H bmc.test power on",
            "ipmitool -I lanplus -U admin -P *** -H bmc.test power on",
        ),
        ("['ipmitool', '-P', 'p4ss']", "['ipmitool', '-P', '***']"),
        ("sshpass -p p4ss ssh a.test", "sshpass -p *** ssh a.test"),
        ("argv ['tool', '--api-token', 'p4ss', '-v']", "argv ['tool', '--api-token', '***', '-v']"),
        ('["password", "p4ss", "x"]', '["password", "***", "x"]'),
    ],
)
def test_secrets_are_hidden_by_kind(text: str, left: str) -> None:
    redaction = Redaction()
    assert redaction.text(text) == left
    assert redaction.count >= 1
    # What is hidden is not found again.
    again = Redaction()
    assert (again.text(left), again.count) == (left, 0)


@pytest.mark.parametrize(
    "text",
    [
        "store: {password_file: /etc/muster/store.password}",
        "api_token_file=/etc/muster/token",
        "https://proxy.test:9090/features, mail to admin@proxy.test",
        "http://127.0.0.1:8000/x?mail=a@b.test",
        "Basic Constraints: CA:TRUE; basic authentication is off",
        "The store's password file /x cannot be read",
        "autosign_tokens has 3 rows, tokens_per_s 4",
        '"password": null, "token": true, "secret": "***"',
        "the secret of dns is missing; key k.test is not known; cp -P a b; python -P x; ps -y; grep -y a:b c",
        "sessions=4 passed=12 compass=north spinning: yes",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    redaction = Redaction()
    assert (redaction.text(text), redaction.count) == (text, 0)


_PEM = "-----BEGIN {0}PRIVATE KEY-----\nMIIEvQ\nIBADAN\n-----END {0}PRIVATE KEY-----"


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "])
def test_private_keys_go_whole(kind: str) -> None:
    redaction = Redaction()
    assert redaction.text(f"a\n{_PEM.format(kind)}\nb\n{_PEM.format(kind)}\nc") == "a\n***\nb\n***\nc"
    assert redaction.count == 2


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a\n-----BEGIN PRIVATE KEY-----\nMIIEvQ", "a\n***"),
        ("MIIEvQ\n-----END PRIVATE KEY-----\nb", "***\nb"),
        (_PEM.format("").replace("\n", "\\n") + "\\nb", "***\\nb"),
        ("MIIEvQ\n-----END PRIVATE KEY-----\nb\n" + _PEM.format(""), "***\nb\n***"),
    ],
)
def test_a_key_that_is_cut_off_goes_with_what_may_be_its_rest(text: str, left: str) -> None:
    assert Redaction().text(text) == left


def test_a_key_whose_lines_came_one_by_one_goes_where_a_digest_stays() -> None:
    line, digest = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj", "0123456789abcdef" * 4
    told = [{"message": m} for m in ("-----BEGIN PRIVATE KEY-----", line, "-----END PRIVATE KEY-----", digest)]
    assert [r["message"] for r in Redaction().value(told)] == [HIDDEN, HIDDEN, HIDDEN, digest]


def test_what_is_known_as_a_secret_goes_however_it_is_written() -> None:
    known = 'p@ss "wörd/'
    texts = [known, "p%40ss%20%22w%C3%B6rd%2F", "p%40ss+%22w%C3%B6rd%2F", json.dumps(known)[1:-1]]
    # In base64 it is written in three ways, by how many bytes stand before it.
    for before in ("", "u", "us", "user:"):
        for coded in (base64.b64encode, base64.urlsafe_b64encode):
            text = coded(f"{before}{known}, and more".encode()).decode()
            assert HIDDEN in Redaction((known,)).text(f"so {text} it is")
    redaction = Redaction((known, "abc"))
    assert [redaction.text(f"so {t} it is, abc") for t in texts] == ["so *** it is, abc"] * 4
    assert redaction.count == 4


def test_in_json_what_stands_under_a_secrets_name_goes_whatever_it_is() -> None:
    content = {
        "password": "a", "token": 1234, "keySecret": ["b", {"c": "d"}], "cookies": {"e": "f"}, "password_file": "/x",
        "secret": None, "deeper": [{"apiKey": "g", "name": f"Bearer {S}"}], "tokens": True, "rows": 3,
    }  # fmt: skip
    redaction = Redaction()
    assert redaction.value(content) == {
        "password": "***", "token": "***", "keySecret": ["***", {"c": "***"}], "cookies": {"e": "***"},
        "password_file": "/x", "secret": None, "deeper": [{"apiKey": "***", "name": "Bearer ***"}], "tokens": True,
        "rows": 3,
    }  # fmt: skip
    assert redaction.count == 7


@pytest.mark.parametrize(
    "name", ["password", "key_secret", "clientSecret", "API-KEY", "db.password", "Set-Cookie", "pin"]
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["password_file", "token_ttl_s", "spin", "key", "compass", "secretary", "url"])
def test_names_of_other_things_are_not(name: str) -> None:
    assert not is_secret(name)


_FILE = """\
# The cluster; its old password: rosebud
schema: 1
store: {url: "postgresql://muster:hunter2@db.test/x", password_file: /etc/muster/store.password}
features:
  dns:
    nsupdate: {key_name: k, key_secret: aGVsbG8=}   # the key
  pulpcore:
    password: |
      two
      lines
    user: admin
shared: &p rosebud2
again: {password: *p}
empty: {password: ~, token: }
"""


def test_a_settings_file_keeps_every_line_but_its_secrets() -> None:
    redaction = Redaction()
    text = of_settings(
        _FILE, redaction, {"key_secret"}, {("store", "url"): lambda _: "postgresql://muster:***@db.test/x"}
    )
    assert text.splitlines() == [
        "# The cluster; its old password: ***",
        "schema: 1",
        'store: {url: "postgresql://muster:***@db.test/x", password_file: /etc/muster/store.password}',
        "features:",
        "  dns:",
        '    nsupdate: {key_name: k, key_secret: "***"}   # the key',
        "  pulpcore:",
        '    password: "***"',
        "    user: admin",
        'shared: "***"',
        "again: {password: ***}",
        "empty: {password: ~, token: }",
    ]
    assert redaction.count == 6


def test_what_holds_no_secret_stays_byte_for_byte_and_is_not_counted() -> None:
    redaction = Redaction()
    text = "store: {url: 'sqlite:////var/lib/muster/store.db'}\n"
    assert of_settings(text, redaction, (), {("store", "url"): str}) == text
    assert redaction.count == 0


@pytest.mark.parametrize("text", ["a: [", "a: *b", "\x00", "a: b: c"])
def test_a_file_that_is_no_settings_is_refused_because_nobody_knows_its_secrets(text: str) -> None:
    with pytest.raises(ValueError, match="no YAML"):
        of_settings(text, Redaction(), (), {})


def test_what_hides_hides_nothing_of_itself() -> None:
    redaction = Redaction(("***",))
    assert (redaction.text(f"token={HIDDEN}"), redaction.count) == ("token=***", 0)


def test_of_a_comment_in_the_settings_the_whole_rest_is_hidden() -> None:
    text = "address: a.test\n# old password: correct horse battery\nmembers: []  # token: a b\n# password_file: /x y\n"
    redaction = Redaction()
    left = of_settings(text, redaction, [], {})
    assert left == "address: a.test\n# old password: ***\nmembers: []  # token: ***\n# password_file: /x y\n"
    assert redaction.count == 2


def test_a_secret_inside_of_what_an_alias_makes_secret_leaves_no_rest_of_it() -> None:
    text = "a: &t {password: x, name: sesame}\nsecrets: *t\n"
    assert of_settings(text, Redaction(), [], {}) == 'a: "***"\nsecrets: ***\n'
