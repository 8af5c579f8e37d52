"""Compliance reports through a real member, made by real ``oscap``, before a stand-in for Foreman that keeps them."""

from __future__ import annotations

import bz2
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import ClickException
from click.testing import CliRunner

from muster.cli import NOT_DONE, muster
from muster.features.openscap import service
from muster.kernel import failpoints
from muster.kernel.errors import MusterError
from muster.store.reading import Query
from muster.store.writing import Change
from tests.servers import foreman_for_hosts, member, scap
from tests.servers.certificates import named
from tests.servers.client import Answer, Connection, ask, request, tls_client
from tests.servers.foreman_for_hosts import ForemanForHosts
from tests.servers.foreman_for_reports import ComplianceOfForeman
from tests.servers.member import TRUSTED, Member

HOST = "host01.example.com"
LIMIT = 1 << 20
_REPORTS = Query("SELECT id, state, cname FROM arf_uploads")


@pytest.fixture(scope="module", autouse=True)
def _needs(needs: Callable[[str], None]) -> None:
    needs("oscap")


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForemanForHosts]:
    with foreman_for_hosts.running(tmp_path_factory.mktemp("foreman")) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(https: ForemanForHosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with member.running(
        tmp_path_factory.mktemp("proxy"),
        features={
            "openscap": {
                "timeout": 3,
                "upload_limit_bytes": 3 * LIMIT,
                "unpacked_limit_bytes": 8 * LIMIT,
                "spool_limit_bytes": 8 * LIMIT,
                "host_limit_bytes": 4 * LIMIT,
            }
        },
        edge={"memory_bytes": 4 << 20},
        foreman={"url": https.url, "ca_file": str(https.ca_file), "trusted_hosts": [TRUSTED]},
    ) as running:
        https.believe(running.ca)
        # Made before threads ask at once: each would make it.
        running.client(HOST)
        yield running


@pytest.fixture(autouse=True)
def foreman(https: ForemanForHosts, proxy: Member) -> Iterator[ComplianceOfForeman]:
    found = ComplianceOfForeman()
    found.answer(https)
    https.asked.clear()
    yield found
    https.delay_s = 0.0
    proxy.tell(emptied, proxy)


async def emptied(proxy: Member) -> None:
    """Have the member begin anew: without reports, and as if Foreman had never been away."""
    service = proxy.process.features.served["openscap"].service
    service._forwarding._away_until, service._forwarding.trouble = float("-inf"), ""
    async with proxy.process.store.write() as uow:
        for statement in ("DELETE FROM arf_uploads", "DELETE FROM arf_chunks"):
            await uow.changed(Change(statement), {})


async def made_due(proxy: Member) -> None:
    """Let the pauses until reports are sent again be over."""
    async with proxy.process.store.write() as uow:
        await uow.changed(Change("UPDATE arf_uploads SET due_at = 0, claimed_until = 0 WHERE state = 'waiting'"), {})
    service = proxy.process.features.served["openscap"].service
    service._forwarding._away_until = float("-inf")
    await service.beat()


def handed_in(proxy: Member, body: bytes, *, host: str | None = HOST, policy: str = "3", **more: Any) -> Answer:
    """Hand a report in as foreman_scap_client does."""
    headers = {"Content-Type": "text/xml", "Content-Encoding": "x-bzip2"}
    return ask(
        proxy.https, "POST", f"/compliance/arf/{policy}", tls=proxy.tls(host), body=body, headers=headers, **more
    )


def states(proxy: Member) -> dict[str, int]:
    async def read() -> list[dict[str, Any]]:
        async with proxy.process.store.read() as uow:
            return await uow.rows(_REPORTS)

    found: dict[str, int] = {}
    for row in proxy.tell(read):
        found[row["state"]] = found.get(row["state"], 0) + 1
    return found


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def command(proxy: Member, *arguments: str) -> tuple[int, str, str]:
    """Run ``muster openscap`` in this process, which takes a tenth of the time, and return code, output and error."""
    given = ["openscap", *arguments, "--cluster", str(proxy.cluster_file)]
    ran = CliRunner().invoke(muster, given, standalone_mode=False)
    if isinstance(ran.exception, MusterError):
        return NOT_DONE, ran.stdout, str(ran.exception)
    if isinstance(ran.exception, ClickException):
        return ran.exception.exit_code, ran.stdout, ran.exception.format_message()
    assert ran.exception is None, ran.exception
    return ran.return_value or 0, ran.stdout, ran.stderr


def at(foreman: ComplianceOfForeman, body: bytes, host: str = HOST) -> str:
    """Return by which path Foreman asks for a report that it was told of."""
    digest = hashlib.sha256(body).hexdigest()
    (one,) = [(k, id) for k, (id, told) in foreman.reports.items() if told["digest"] == digest and k[0] == host]
    return f"/compliance/arf/{one[1]}/{host}/{one[0][2]}/{digest}"


def test_a_report_reaches_foreman_with_what_it_says_of_each_rule(
    proxy: Member, foreman: ComplianceOfForeman, https: ForemanForHosts
) -> None:
    body = scap.report()
    before = int(time.time())
    got = handed_in(proxy, body)
    assert (got.status, json.loads(got.body)) == (200, {"result": "ok", "id": "101"})
    (one,) = https.asked
    _, _, _, _, _, host, policy, date = one.path.split("/")
    assert (one.method, host, policy) == ("POST", HOST, "3")
    assert before - 1 <= int(date) <= time.time() + 1
    assert (one.client, one.headers["content-type"]) == (proxy.name, "application/json")
    assert one.headers["accept"] == "application/json,version=2"
    told = json.loads(one.body)
    assert list(told) == ["logs", "digest", "metrics", "score", "openscap_proxy_name", "openscap_proxy_url"]
    assert told["metrics"] == {"passed": 1, "failed": 1, "othered": 1}
    assert (told["score"], told["digest"]) == (50.0, hashlib.sha256(body).hexdigest())
    assert told["openscap_proxy_name"] == member.CLUSTER_ADDRESS
    assert told["openscap_proxy_url"] == f"https://{member.CLUSTER_ADDRESS}:9090"
    assert [(r["source"].rpartition("_")[2], r["result"], r["severity"]) for r in told["logs"]] == [
        ("passes", "pass", "low"), ("fails", "fail", "high"), ("unchecked", "notchecked", "medium"),
    ]  # fmt: skip
    passes, fails, _ = told["logs"]
    assert passes["description"] == "Some   text           with bold words, and            an empty line."
    assert passes["references"] == [
        {"href": "https://example.net/one", "title": "One"}, {"href": "https://example.net/two", "title": ""},
    ]  # fmt: skip
    assert fails["title"] == "It is a Windows – <ä> & more"
    assert fails["fixes"] == [
        {
            "id": "f1", "system": "urn:xccdf:fix:script:sh",
            "full_text": "chmod 0600 /etc/example\n# a < b && c\n", "reboot": "true",
        },
        {"id": "f2", "system": "urn:xccdf:fix:script:ansible", "full_text": "- name: nothing", "reboot": None},
    ]  # fmt: skip


def test_foreman_gets_the_report_back_as_it_was_and_as_a_page_until_it_deletes_it(
    proxy: Member, foreman: ComplianceOfForeman
) -> None:
    body = scap.report("back")
    handed_in(proxy, body)
    path = at(foreman, body)
    got = proxy.ask("GET", f"{path}/xml")
    assert (got.status, got.body, got.headers["content-type"]) == (200, body, "application/x-bzip2")
    page = proxy.ask("GET", f"{path}/html")
    assert (page.status, page.headers["content-type"]) == (200, "text/html;charset=utf-8")
    assert b"It is a Windows" in page.body
    assert page.body.rstrip().endswith(b"</html>")
    # What a host says in it does nothing in the member's name, in the browser of an operator.
    assert page.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none';")
    assert not list((proxy.pki / "openscap" / "scratch").iterdir())
    gone = proxy.ask("DELETE", path)
    id = path.split("/")[3]
    assert (gone.status, json.loads(gone.body)) == (200, {"id": id, "deleted": True})
    assert (proxy.ask("DELETE", path).status, proxy.ask("DELETE", path).body) == (200, b"")
    for what in ("xml", "html"):
        absent = proxy.ask("GET", f"{path}/{what}")
        assert (absent.status, "There is no compliance report" in absent.text) == (404, True)


def test_a_long_report_is_kept_in_pieces_and_comes_back_whole(proxy: Member, foreman: ComplianceOfForeman) -> None:
    # What follows a packed stream is nobody's, for bunzip2 and for us.
    body = scap.report("long") + bytes(range(256)) * (9 * 1024)
    assert len(body) > 2 * LIMIT
    got = handed_in(proxy, body)
    assert (got.status, json.loads(got.body)["result"]) == (200, "ok")
    assert proxy.ask("GET", f"{at(foreman, body)}/xml").body == body


def test_the_same_report_handed_in_by_many_at_once_is_sent_once(proxy: Member, foreman: ComplianceOfForeman) -> None:
    body = scap.report("many")
    with ThreadPoolExecutor(8) as threads:
        found = {f.result().status for f in [threads.submit(handed_in, proxy, body) for _ in range(8)]}
    assert found == {200}
    until(lambda: states(proxy) == {"sent": 1})
    assert foreman.posted == [HOST]
    assert json.loads(handed_in(proxy, body).body) == {"result": "ok", "id": "101"}
    assert foreman.posted == [HOST]
    # Another policy's is another report, and so is another host's.
    handed_in(proxy, body, policy="4")
    handed_in(proxy, body, host="host02.example.com")
    assert foreman.posted == [HOST, HOST, "host02.example.com"]


def test_a_host_s_reports_of_one_moment_have_different_times(proxy: Member, foreman: ComplianceOfForeman) -> None:
    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(handed_in, proxy, scap.report(f"moment {n}"), policy=str(n)) for n in range(1, 5)]
        assert {json.loads(f.result().body)["result"] for f in sent} == {"ok"}
    assert len({date for _, _, date in foreman.reports}) == 4


def test_while_foreman_is_away_reports_are_kept_and_sent_when_it_is_back(
    proxy: Member, foreman: ComplianceOfForeman, https: ForemanForHosts
) -> None:
    https.stop()
    try:
        first, second = handed_in(proxy, scap.report("away 1")), handed_in(proxy, scap.report("away 2"))
        for got in (first, second):
            assert got.status == 200
            said = json.loads(got.body)
            assert list(said) == ["result"]
            assert "sends it to Foreman later: Foreman cannot be reached" in said["result"]
        assert states(proxy) == {"waiting": 2}
    finally:
        https.start()
    proxy.tell(made_due, proxy)
    until(lambda: states(proxy) == {"sent": 2})
    assert len(foreman.of(HOST)) == 2


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_what_somebody_can_mend_at_foreman_is_sent_again(
    proxy: Member, foreman: ComplianceOfForeman, status: int
) -> None:
    foreman.status = status
    body = scap.report(f"mended {status}")
    assert f"Foreman answered {status}: as it was told" in json.loads(handed_in(proxy, body).body)["result"]
    assert states(proxy) == {"waiting": 1}
    foreman.status = None
    proxy.tell(made_due, proxy)
    until(lambda: states(proxy) == {"sent": 1})


def test_what_foreman_refuses_is_kept_for_somebody_to_look_at(proxy: Member, foreman: ComplianceOfForeman) -> None:
    foreman.unknown = {HOST}
    body = scap.report("refused")
    said = json.loads(handed_in(proxy, body).body)["result"]
    assert said.endswith(f"Foreman answered 422: Could not find host identified by: {HOST}")
    assert json.loads(proxy.ask("GET", "/compliance/spool_errors").body) == {"errors_count": 1}
    code, out, _ = command(proxy, "spool", "--json")
    found = json.loads(out)
    assert (code, found["needs_somebody"], found["counts"]["refused"]["reports"]) == (1, True, 1)
    (one,) = found["reports"]
    assert (one["cname"], one["policy"], one["state"], one["size"]) == (HOST, 3, "refused", len(body))
    assert "Could not find host" in command(proxy, "spool")[1]
    code, out, _ = command(proxy, "retry", "--dry-run", one["id"][:8])
    assert (code, out) == (0, "Would have 1 report sent again.\n")
    assert states(proxy) == {"refused": 1}
    foreman.unknown = set()
    assert command(proxy, "retry")[:2] == (0, "1 report will be sent again.\n")
    until(lambda: states(proxy) == {"sent": 1})
    code, out, _ = command(proxy, "remove", one["id"], "--dry-run", "--json")
    assert (code, json.loads(out)["removed"], states(proxy)) == (0, [one["id"]], {"sent": 1})
    code, out, _ = command(proxy, "remove", one["id"][:10])
    assert (code, out) == (0, f"Removed {one['id'][:8]} of {HOST}.\n")
    assert states(proxy) == {}
    code, _, err = command(proxy, "remove", one["id"])
    assert (code, "names no report; nothing was changed" in err) == (4, True)
    code, _, err = command(proxy, "remove", "../x")
    assert (code, "is no id of a report" in err) == (2, True)
    assert command(proxy, "spool")[0] == 0


def test_a_report_that_is_handed_in_again_after_it_was_refused_is_sent_again(
    proxy: Member, foreman: ComplianceOfForeman
) -> None:
    foreman.unknown = {HOST}
    body = scap.report("again")
    handed_in(proxy, body)
    foreman.unknown = set()
    assert json.loads(handed_in(proxy, body).body) == {"result": "ok", "id": "101"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<xml/>", "it is not packed with bzip2"),
        (bz2.compress(b"<a></b>"), "it is no well-formed XML"),
        (bz2.compress(b"<a/>"), "it has no Benchmark"),
        (bz2.compress(b"<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>"), "it has a document type"),
        (bz2.compress(b"<a>" + b" " * (9 * LIMIT) + b"</a>"), f"it holds more than {8 * LIMIT} bytes"),
        (bz2.compress(b"<a>")[:-3], "its bzip2 stream"),
    ],
    ids=["plain", "broken", "other", "entities", "large", "cut"],
)
def test_what_cannot_be_read_is_kept_and_never_reaches_foreman(
    proxy: Member, foreman: ComplianceOfForeman, body: bytes, why: str
) -> None:
    got = handed_in(proxy, body)
    assert got.status == 200
    assert why in json.loads(got.body)["result"]
    assert states(proxy) == {"refused": 1}
    assert foreman.posted == []


def test_many_reports_at_once_wait_for_room_and_none_is_sent_away(proxy: Member, foreman: ComplianceOfForeman) -> None:
    padding = bytes(range(256)) * 1024
    # Half as much again as a member may hold.
    many = proxy.process.cluster.edge.memory_bytes * 3 // 2 // len(padding)

    def handed_in_slowly(number: int) -> int:
        body = scap.report(str(number)) + padding
        with Connection(proxy.https, tls=proxy.tls(f"many{number}.example.com")) as connection:
            head = request("POST", "/compliance/arf/3", {"Content-Length": str(len(body))})
            connection.send(head + body[:-1])
            time.sleep(0.5)
            connection.send(body[-1:])
            return connection.answer("POST").status

    for number in range(many):
        proxy.client(f"many{number}.example.com")
    with ThreadPoolExecutor(many) as threads:
        assert list(threads.map(handed_in_slowly, range(many))) == [200] * many
    proxy.tell(made_due, proxy)
    until(lambda: len(foreman.reports) == many)


def test_hosts_that_send_slowly_keep_no_others_waiting(
    proxy: Member, foreman: ComplianceOfForeman, monkeypatch: pytest.MonkeyPatch
) -> None:
    arriving = proxy.process.features.served["openscap"].service
    bodies = [scap.report(f"slow {n}") + bytes(LIMIT // 8) for n in range(4)]
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(proxy.https, tls=proxy.tls(HOST))) for _ in bodies]
        for connection, body in zip(connections, bodies, strict=True):
            connection.send(request("POST", "/compliance/arf/3", {"Content-Length": str(len(body))}) + body[:-1])
        lying = sum(len(body) - 1 for body in bodies)
        until(lambda: arriving._arriving_bytes == lying)
        # That is all that may lie there, and who waits for room waits longer than its client.
        monkeypatch.setattr(service, "_SHARE", proxy.process.cluster.edge.memory_bytes // lying + 1)
        monkeypatch.setattr(service, "_ROOM_PAUSE_S", 3600.0)
        assert handed_in(proxy, bytes(LIMIT // 2), host="host02.example.com").status == 200
        monkeypatch.undo()
        for connection, body in zip(connections, bodies, strict=True):
            connection.send(body[-1:])
            assert connection.answer("POST").status == 200
    until(lambda: states(proxy) == {"sent": len(bodies), "refused": 1})
    for body in bodies:
        assert proxy.ask("GET", f"{at(foreman, body)}/xml").body == body


def test_a_body_that_is_too_long_or_empty_leaves_nothing(proxy: Member) -> None:
    assert handed_in(proxy, b"x" * (3 * LIMIT + 1)).status == 413
    assert handed_in(proxy, b"").status == 400
    assert states(proxy) == {}


@pytest.mark.parametrize("place", ["before", "after"])
def test_where_the_store_does_not_answer_nothing_is_acknowledged(
    proxy: Member, foreman: ComplianceOfForeman, place: str
) -> None:
    body = scap.report(f"store {place}")
    failpoints.arm({failpoints.VARIABLE: f"arf-accepted.{place}-commit=error"})
    try:
        assert handed_in(proxy, body).status == 503
    finally:
        failpoints.arm({})
    # After the commit it is there, and the host does not know.
    assert states(proxy) == ({} if place == "before" else {"waiting": 1})
    assert json.loads(handed_in(proxy, body).body)["result"] == "ok"
    assert len(foreman.posted) == 1


def test_a_full_spool_says_so_and_loses_nothing_that_was_acknowledged(
    proxy: Member, foreman: ComplianceOfForeman
) -> None:
    foreman.status = 503
    padding = bytes(range(256)) * (11 * 1024)
    found = [handed_in(proxy, scap.report(f"{n}") + padding, host=f"full{n // 2}.example.com") for n in range(4)]
    assert [f.status for f in found] == [200, 507, 200, 507]
    assert "host_limit_bytes" in found[1].text
    other = handed_in(proxy, scap.report("6") + padding, host="full9.example.com")
    assert (other.status, "spool_limit_bytes" in other.text) == (507, True)
    assert states(proxy) == {"waiting": 2}
    foreman.status = None
    proxy.tell(made_due, proxy)
    until(lambda: states(proxy) == {"sent": 2})


def test_hosts_fetch_a_policy_s_content_that_foreman_is_asked_for_once(
    proxy: Member, foreman: ComplianceOfForeman
) -> None:
    content = scap.made()[0]
    digest = hashlib.sha256(content).hexdigest()
    foreman.contents = {("7", "content"): content, ("7", "tailoring"): b"<tailoring/>"}
    path = f"/compliance/policies/7/content/{digest}"
    with ThreadPoolExecutor(6) as threads:
        found = [f.result() for f in [threads.submit(proxy.ask, "GET", path, name=HOST) for _ in range(12)]]
    assert {(f.status, f.body, f.headers["content-type"]) for f in found} == {(200, content, "application/xml")}
    assert foreman.asked == ["7 content"]
    other = proxy.ask("GET", f"/compliance/policies/7/tailoring/{digest}", name=HOST)
    assert (other.status, "Foreman has another tailoring file for policy 7" in other.text) == (404, True)
    # Any host may make up digests: Foreman does not send the whole file for each.
    for made_up in "123":
        assert proxy.ask("GET", f"/compliance/policies/7/tailoring/{made_up * 64}", name=HOST).status == 404
    assert foreman.asked == ["7 content", "7 tailoring"]
    # What Foreman has by now takes the other's place, and that is not given any more.
    foreman.contents["7", "content"] = b"<newer/>"
    newer = hashlib.sha256(b"<newer/>").hexdigest()
    assert proxy.ask("GET", f"/compliance/policies/7/content/{newer}", name=HOST).body == b"<newer/>"
    assert proxy.ask("GET", path, name=HOST).status == 404
    absent = proxy.ask("GET", f"/compliance/policies/8/content/{digest}", name=HOST)
    assert (absent.status, "Foreman has no SCAP content of policy 8" in absent.text) == (404, True)
    for bad in (
        f"8/content/{digest[:-1]}",
        f"8/content/{digest.upper()}",
        f"x/content/{digest}",
        f"8/content/{'g' * 64}",
    ):
        assert proxy.ask("GET", f"/compliance/policies/{bad}", name=HOST).status == 400


def test_foreman_has_contents_read_before_it_takes_them(proxy: Member) -> None:
    content = scap.made()[0]
    for path in ("/compliance/scap_file/validator/scap_content", "/compliance/scap_content/validator"):
        assert json.loads(proxy.ask("POST", path, body=content).body) == {"errors": []}
        assert json.loads(proxy.ask("POST", path, body=b"no").body)["errors"][0].startswith(
            "Reading the content failed"
        )
    assert json.loads(proxy.ask("POST", "/compliance/scap_content/policies", body=content).body) == {
        "xccdf_net.example_profile_all": "Everything",
        "xccdf_net.example_profile_few": "Nearly <nothing> – ä",
    }
    tailoring = b"<x:Tailoring xmlns:x='u'><x:Profile id='p'><x:title>T</x:title></x:Profile></x:Tailoring>"
    assert json.loads(proxy.ask("POST", "/compliance/tailoring_file/profiles", body=tailoring).body) == {"p": "T"}
    for body in (b"<a/>", b"<a"):
        got = proxy.ask("POST", "/compliance/tailoring_file/profiles", body=body)
        assert (got.status, got.text.startswith("Error occurred: ")) == (500, True)
    assert proxy.ask("POST", "/compliance/scap_file/validator/other", body=b"<a/>").status == 404


def test_what_is_labelled_as_a_page_does_nothing_in_the_member_s_name(proxy: Member) -> None:
    content = b"<Benchmark><Profile id='p'><title>&lt;script&gt;1&lt;/script&gt;</title></Profile></Benchmark>"
    got = proxy.ask("POST", "/compliance/scap_content/policies", body=content)
    assert (got.status, json.loads(got.body)) == (200, {"p": "<script>1</script>"})
    assert "sandbox" in got.headers["content-security-policy"]


def test_foreman_shows_the_guide_to_a_profile(proxy: Member) -> None:
    content = scap.made()[0]
    for path in ("/compliance/scap_content/guide", f"/compliance/scap_content/guide/{scap.PROFILE}"):
        got = proxy.ask("POST", path, body=content)
        assert got.status == 200, got.text
        assert "What tests measure hosts by" in json.loads(got.body)["html"]
    bad = proxy.ask("POST", "/compliance/scap_content/guide/--output", body=content)
    assert (bad.status, "is no id of a profile" in bad.text) == (400, True)
    none = proxy.ask("POST", "/compliance/scap_content/guide", body=b"<a/>")
    assert (none.status, "oscap made no guide of it" in none.text) == (500, True)
    entities = proxy.ask("POST", "/compliance/scap_content/guide", body=b"<!DOCTYPE a><a/>")
    assert (entities.status, "it has a document type" in entities.text) == (500, True)


def test_older_reports_can_be_imported_with_their_host_and_time(proxy: Member, foreman: ComplianceOfForeman) -> None:
    body = scap.report("imported")
    got = proxy.ask("POST", "/compliance-importer/arf/old.example.com/5/1600000000", body=body)
    assert (got.status, json.loads(got.body)) == (200, {"success": True, "arf_id": "101"})
    assert list(foreman.reports) == [("old.example.com", "5", "1600000000")]
    other = proxy.ask("POST", "/compliance-importer/arf/old.example.com/5/1600000000", body=scap.report("other"))
    assert other.status == 409


def test_hosts_hand_in_their_own_reports_and_read_nobody_s(proxy: Member, foreman: ComplianceOfForeman) -> None:
    body = scap.report("mine")
    assert handed_in(proxy, body, host=None).status == 403
    plain = ask(proxy.http, "POST", "/compliance/arf/3", body=body)
    # The feature is on HTTPS alone.
    assert plain.status == 503
    handed_in(proxy, body)
    path = at(foreman, body)
    for method, what in (("GET", f"{path}/xml"), ("GET", f"{path}/html"), ("DELETE", path)):
        assert proxy.ask(method, what, name=HOST).status == 403
    assert proxy.ask("GET", "/compliance/spool_errors", name=HOST).status == 403
    assert proxy.ask("POST", "/compliance-importer/arf/a/1/1", name=HOST).status == 403
    assert proxy.ask("GET", f"/compliance/policies/1/content/{'0' * 64}", name=None).status == 403
    for policy in ("x", "-1", "1234567890", "1;2"):
        assert handed_in(proxy, body, policy=policy).status == 400
    odd = member.certificate(proxy.authority.directory, proxy.directory / "odd.pem", named("../a host"))
    got = ask(proxy.https, "POST", "/compliance/arf/3", tls=tls_client(proxy.ca, odd), body=body)
    assert (got.status, "could not read CN" in got.text) == (403, True)


def test_what_is_not_asked_for_any_more_is_dropped(proxy: Member, foreman: ComplianceOfForeman) -> None:
    def of_service(kept_s: float, kept_bytes: int) -> int:
        ledger = proxy.process.features.served["openscap"].service._ledger

        async def forgotten() -> int:
            return int(await ledger.forget(kept_s=kept_s, kept_bytes=kept_bytes))

        return int(proxy.tell(forgotten))

    for n in range(3):
        handed_in(proxy, scap.report(f"kept {n}"))
    size = len(scap.report("kept 0"))
    assert of_service(3600, 1 << 30) == 0
    assert of_service(3600, 2 * size + size // 2) == 1
    assert states(proxy) == {"sent": 2}
    foreman.unknown = {HOST}
    handed_in(proxy, scap.report("kept 4"))
    assert of_service(-1, 1 << 30) == 3
    assert states(proxy) == {}


def test_foreman_hears_of_the_feature_and_monitoring_of_its_reports(
    proxy: Member, foreman: ComplianceOfForeman
) -> None:
    told = json.loads(proxy.ask("GET", "/v2/features").body)["openscap"]
    assert told == {
        "http_enabled": False, "https_enabled": True, "settings": {}, "state": "running", "capabilities": [],
    }  # fmt: skip
    assert "openscap" in json.loads(proxy.ask("GET", "/features").body)
    handed_in(proxy, scap.report("counted"))
    proxy.tell(made_due, proxy)
    until(lambda: 'muster_openscap_reports{state="sent"} 1.0' in proxy.ask("GET", "/metrics").text)


def test_without_foreman_the_feature_failed_and_says_what_it_needs(tmp_path: Path) -> None:
    with member.running(tmp_path, features={"openscap": {}}) as other:
        told = json.loads(other.ask("GET", "/v2/features").body)
        assert told["openscap"]["state"] == "failed"
        got = handed_in(other, b"x")
        assert (got.status, "foreman.url is absent" in got.text) == (503, True)
    assert yaml.safe_load(other.cluster_file.read_text())["features"] == {"openscap": {}}
