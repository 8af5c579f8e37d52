"""What ``/logs`` says after a conversation (docs/facts/smart-proxy-protocol.md §6); Foreman's own page reads it."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.servers.client import ask
from tests.servers.member import TRUSTED, Member


def _records(proxy: Member, since: float) -> list[dict[str, Any]]:
    records = json.loads(proxy.ask("GET", f"/logs/?from_timestamp={since}").body)["logs"]
    assert isinstance(records, list)
    return records


def _call(proxy: Member, path: str, request_id: str) -> None:
    ask(proxy.https, "GET", path, tls=proxy.tls(TRUSTED), headers={"X-Request-Id": request_id})


def test_a_call_leaves_its_start_its_error_and_its_end_under_its_request_id(proxy: Member) -> None:
    since = time.time()
    _call(proxy, "/ansible/nonsense", "cafe0001-aaaa-bbbb-cccc-dddddddddddd")
    mine = [r for r in _records(proxy, since) if r.get("request_id") == "cafe0001"]
    assert [r["level"] for r in mine] == ["INFO", "ERROR", "INFO"]
    assert mine[0]["message"] == "Started GET /ansible/nonsense"
    assert "Feature ansible is not configured on this member" in mine[1]["message"]
    assert mine[2]["message"].startswith("Finished GET /ansible/nonsense with 503 (")


def test_records_have_foremans_keys_in_order_and_the_member_after_them(proxy: Member) -> None:
    since = time.time()
    _call(proxy, "/version", "cafe0002-aaaa-bbbb-cccc-dddddddddddd")
    records = [r for r in _records(proxy, since) if r.get("request_id") == "cafe0002"]
    assert [list(r) for r in records] == [["timestamp", "level", "message", "request_id", "member"]] * 2
    assert {r["member"] for r in records} == {proxy.name}
    assert all(isinstance(r["timestamp"], float) for r in records)


def test_records_ascend_and_none_is_older_than_asked_for(proxy: Member) -> None:
    _call(proxy, "/version", "cafe0003")
    # A call's last record is made after its reply; it is there when the next call is answered.
    _records(proxy, 0)
    since = time.time()
    _call(proxy, "/version", "cafe0004")
    records = _records(proxy, since)
    stamps = [r["timestamp"] for r in records]
    assert stamps == sorted(stamps)
    assert stamps[0] >= since
    assert "cafe0003" not in {r.get("request_id") for r in records}


def test_queries_and_bodies_never_reach_the_log(proxy: Member) -> None:
    since = time.time()
    _call(proxy, "/version?token=sw0rdf1sh", "cafe0005")
    proxy.ask("POST", "/dns/", body=b"fqdn=sw0rdf1sh!&value=1&type=A&token=tr0ub4dor")
    text = json.dumps(_records(proxy, since)) + "\n".join(proxy.access_lines)
    assert "token" not in text
    assert "tr0ub4dor" not in text


def test_health_questions_leave_no_records(proxy: Member) -> None:
    since = time.time()
    _call(proxy, "/health/ready?service=smartproxy", "cafe0006")
    _call(proxy, "/metrics", "cafe0007")
    assert {"cafe0006", "cafe0007"}.isdisjoint(r.get("request_id") for r in _records(proxy, since))


def test_a_request_id_with_odd_characters_is_made_harmless(proxy: Member) -> None:
    since = time.time()
    _call(proxy, "/version", "ab\tcd\xe9ef" + "x" * 100)
    ids = {r.get("request_id") for r in _records(proxy, since)}
    assert "abcdefxx" in ids
