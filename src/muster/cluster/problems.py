"""What no single field of the cluster file can know: ids and names that stand twice, a signer that is no member.

Rooms above add their own findings (services in ``balancer``, features in ``features``), so that ``muster config check``
shows all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from muster.cluster.file import OLDER_WORDS, ClusterFile, priority_at
from muster.cluster.sections import ServiceOverride
from muster.cluster.values import address_of
from muster.kernel.settings import Document, Location, Problem


def problems(document: Document) -> list[Problem]:
    """Return what is wrong between fields; works on raw content, so that it also speaks of half-valid files."""
    content = document.content
    if not isinstance(content, dict):
        return [Problem(1, "", "is not a mapping of settings")]
    found: list[Problem] = []
    members = [m for m in _sequence(content.get("members")) if isinstance(m[1], dict)]
    for key in ("id", "name"):
        first: dict[str, int] = {}
        for index, member in members:
            value = member.get(key)
            if value is None:
                continue
            folded = _folded(value)
            if folded in first:
                at = document.line_of(("members", first[folded], key))
                found.append(document.problem(("members", index, key), f"{value} stands already in line {at}"))
            first.setdefault(folded, index)
    for index, member in members:
        if (name := member.get("name")) is not None and address_of(str(name)) is not None:
            sentence = f"{name} is an address; a member needs a host name, which its certificate carries"
            found.append(document.problem(("members", index, "name"), sentence))
    names = {_folded(m.get("name")) for _, m in members}
    signer = content.get("signer", "any")
    if isinstance(signer, str) and signer != "any" and _folded(signer) not in names:
        found.append(document.problem(("signer",), f"{signer} is no member; members are {', '.join(sorted(names))}"))
    address = _folded(content.get("address", ""))
    for index, member in members:
        if address and _folded(member.get("name")) == address:
            found.append(
                document.problem(("members", index, "name"), "is the cluster's address; a member needs its own")
            )
    found += _of_names(document, content)
    found += _of_generation(document, content)
    seen: set[str] = set()
    for index, balancer in _sequence(content.get("balancers")):
        name = str(balancer.get("name", "balancer")) if isinstance(balancer, dict) else ""
        if name in seen:
            found.append(document.problem(("balancers", index, "name"), f"{name} stands twice"))
        seen.add(name)
    found += _of_smartproxy(document, content, [m for _, m in members])
    found += _virtual_address_problems(document, content)
    found += _of_expected_differences(document, content, names)
    section = content.get("content")
    if isinstance(section, dict) and section.get("foreman_key") and not section.get("foreman_certificate"):
        where: Location = ("content", "foreman_key")
        found.append(document.problem(where, "is the key of no certificate: foreman_certificate is absent"))
    if isinstance(section, dict) and section.get("keepers") and section.get("one_version") is False:
        where = ("content", "keepers")
        found.append(document.problem(where, "needs one_version, which is false: nothing follows what Pulp serves"))
    found += _of_foreman(document, content)
    if isinstance(section, dict):
        found += _of_steered(document, section)
    return [*found, *_of_store(document, content, [m for _, m in members])]


def _of_names(document: Document, content: dict[str, Any]) -> Iterator[Problem]:
    """The names that clients use are nobody's own."""
    members = {_folded(m.get("name")) for _, m in _sequence(content.get("members")) if isinstance(m, dict)}
    foreman = content.get("foreman")
    host = _host_in(foreman.get("url")) if isinstance(foreman, dict) else ""
    places: list[tuple[Location, Any]] = [(("address",), content.get("address"))]
    places += [(("aliases", index), name) for index, name in _sequence(content.get("aliases"))]
    for where, name in places:
        if host and _folded(name) == host:
            yield document.problem(where, f"is Foreman's name; clients of the proxies need another than {host}")
        # Of the address itself it is said where the member stands.
        if where[0] == "aliases" and _folded(name) in members:
            yield document.problem(where, f"is a member's own name, which leads past the balancer: {name}")


def _host_in(url: Any) -> str:
    try:
        return _folded(urlsplit(str(url)).hostname or "")
    except ValueError:
        return ""


def _of_generation(document: Document, content: dict[str, Any]) -> Iterator[Problem]:
    older = content.get("profile")
    if older is None or "generation" not in content or not isinstance(older, str):
        return
    meant = OLDER_WORDS.get(older, older)
    if content["generation"] != meant:
        sentence = f"is an older word for generation: {meant}, and the file says {content['generation']}; take it away"
        yield document.problem(("profile",), sentence)


def _of_foreman(document: Document, content: dict[str, Any]) -> Iterator[Problem]:
    """Who asks Foreman's API needs a user, his token and where it is; over plain HTTP everybody would read the token."""
    foreman = content.get("foreman")
    if not isinstance(foreman, dict):
        return
    there = [key for key in ("api_user", "api_token_file") if foreman.get(key) is not None]
    if len(there) == 1:
        other = "api_token_file" if there == ["api_user"] else "api_user"
        yield document.problem(("foreman", there[0]), f"needs {other} beside it; one without the other asks nobody")
    elif there and foreman.get("url") is None:
        yield document.problem(("foreman", "api_user"), "needs url beside it: where Foreman is")
    elif there and not str(foreman["url"]).startswith("https://"):
        sentence = "must be https://… where api_user asks it: over plain HTTP everybody on the way reads the token"
        yield document.problem(("foreman", "url"), sentence)


def _of_steered(document: Document, section: dict[str, Any]) -> Iterator[Problem]:
    """Commands name repositories by their names alone."""
    mirrored, steered = (
        one.get("repositories") if isinstance(one := section.get(key), dict) else None for key in ("mirror", "steered")
    )
    if not isinstance(mirrored, dict) or not isinstance(steered, dict):
        return
    for name in steered:
        if name in mirrored:
            at = document.line_of(("content", "mirror", "repositories", name))
            sentence = f"{name} is mirrored by members already (line {at}); each repository has a name of its own"
            yield document.problem(("content", "steered", "repositories", name), sentence)


def _of_store(document: Document, content: dict[str, Any], members: list[dict[str, Any]]) -> Iterator[Problem]:
    """Several hosts cannot share a file. Members of kind foreman never touch the store: then only balancers do."""
    store = content.get("store")
    url = str(store.get("url", "")) if isinstance(store, dict) else ""
    if not url.startswith("sqlite:"):
        return
    where: Location = ("store", "url")
    ours = [m for m in members if m.get("kind", "muster") == "muster"]
    if len(_hosts(ours)) > 1:
        yield document.problem(where, "SQLite serves members of one host; members on several need postgresql://")
    balancers = [b for _, b in _sequence(content.get("balancers")) if isinstance(b, dict)]
    if not ours and len(_hosts(balancers)) > 1:
        yield document.problem(where, "SQLite serves one balancer; several need postgresql://")


def _hosts(entries: list[dict[str, Any]]) -> set[str]:
    return {str(e.get("address")) for e in entries if not str(e.get("address", "")).startswith("127.")}


def warnings(document: Document, cluster: ClusterFile) -> list[Problem]:
    """Return what is valid and does probably not what was meant."""
    found: list[Problem] = []
    if cluster.foreman.ca_file is not None and cluster.foreman.trusted_hosts is None and not cluster.trusted_names:
        found.append(
            document.problem(
                ("foreman", "ca_file"),
                "nobody may use protected routes with a certificate of this CA: neither trusted_hosts nor the host name in "
                "url says which of its certificates is Foreman's",
            )
        )
    if cluster.foreman.registration == "cluster" and any(m.kind == "foreman" for m in cluster.members):
        found.append(
            document.problem(
                ("foreman", "registration"),
                "has Foreman know Ruby members by the cluster's address: each has state of its own, and Foreman tells "
                "callers apart by the names in their certificates, which all of them have; members",
            )
        )
    return [*found, *_of_content(document, cluster)]


def _of_content(document: Document, cluster: ClusterFile) -> Iterator[Problem]:
    content = cluster.content
    if content is None:
        return
    if all(m.kind != "muster" for m in cluster.members):
        yield document.problem(("content",), "leads to nothing: no member is of kind muster, and others have an Apache")
    mirrored = content.mirror.repositories if content.mirror is not None else {}
    has_images = any(one.kind == "container" for one in mirrored.values())
    if content.registry_url is None and "docker" in content.services and not has_images:
        sentence = "docker leads nowhere: without registry_url, /v1/, /v2/ and /index/ are 404"
        yield document.problem(("content", "services"), sentence)
    if has_images and (not content.one_version or {"https", "http"}.isdisjoint(content.services)):
        sentence = "images that are mirrored are given to nobody: that needs https among services, and one_version"
        yield document.problem(("content", "mirror"), sentence)
    if mirrored and "https" not in content.services and sum(m.kind == "muster" for m in cluster.members) > 1:
        sentence = (
            "what is mirrored stays with the member that fetched it: others ask on https, which services do not name"
        )
        yield document.problem(("content", "mirror"), sentence)
    if content.steered is not None and (not content.one_version or {"https", "http"}.isdisjoint(content.services)):
        sentence = "no member steers a Pulp: that needs https or http among services, and one_version"
        yield document.problem(("content", "steered"), sentence)
    if cluster.foreman.url is None and not {"https", "rhsm"}.isdisjoint(content.services):
        sentence = "/rhsm and what else Foreman answers is 404, because foreman.url is absent"
        yield document.problem(("content",), sentence)
    if content.pub is not None and (not content.pub.is_absolute() or len(content.pub.parts) < 2):
        yield document.problem(("content", "pub"), f"{content.pub} is no path of a directory for everybody, from / on")


def _of_smartproxy(document: Document, content: dict[str, Any], members: list[dict[str, Any]]) -> Iterator[Problem]:
    """A Muster member listens on this service's port whether balancers offer it or not; a Ruby one has its own settings."""
    services = content.get("services")
    override = services.get("smartproxy") if isinstance(services, dict) else None
    if not isinstance(override, dict) or not any(m.get("kind", "muster") == "muster" for m in members):
        return
    try:
        offered = ServiceOverride(enabled=override.get("enabled", True)).enabled
    except ValidationError:
        return
    if not offered:
        sentence = "members of kind muster cannot serve without this service; only a cluster of kind foreman can"
        yield document.problem(("services", "smartproxy", "enabled"), sentence)


def _virtual_address_problems(document: Document, content: dict[str, Any]) -> Iterator[Problem]:
    virtual = content.get("virtual_address")
    if not isinstance(virtual, dict):
        return
    ours = address_of(str(virtual.get("address", "")).partition("/")[0])
    balancers = [(i, b) for i, b in _sequence(content.get("balancers")) if isinstance(b, dict)]
    if len(balancers) < 2:
        sentence = f"moves between balancers, so it needs two or more; the file has {len(balancers)}"
        yield document.problem(("virtual_address",), sentence)
    taken: dict[int, str] = {}
    addresses: dict[object, str] = {}
    for index, balancer in balancers:
        name = str(balancer.get("name", "balancer"))
        own = balancer.get("priority")
        priority = own if isinstance(own, int) else priority_at(index)
        if priority in taken:
            where: Location = ("balancers", index, "priority")
            yield document.problem(where, f"{name} and {taken[priority]} both have priority {priority}")
        taken.setdefault(priority, name)
        address = address_of(str(balancer.get("address", "")))
        if address is not None and addresses.setdefault(address, name) != name:
            sentence = (
                f"is {addresses[address]}'s, too; balancers tell each other who owns {ours}, so {name} needs its own"
            )
            yield document.problem(("balancers", index, "address"), sentence)
        if ours is not None and (address is None or address.version != ours.version):
            sentence = f"must be an IPv{ours.version} address, because balancers tell each other who owns {ours}"
            yield document.problem(("balancers", index, "address"), sentence)
    for section in ("balancers", "members"):
        for index, one in _sequence(content.get(section)):
            if ours is not None and isinstance(one, dict) and address_of(str(one.get("address", ""))) == ours:
                sentence = f"is the virtual address; {one.get('name', 'it')} needs its own"
                yield document.problem((section, index, "address"), sentence)


def _of_expected_differences(document: Document, content: dict[Any, Any], names: set[str]) -> list[Problem]:
    found: list[Problem] = []
    for index, expected in _sequence(content.get("expected_differences")):
        for place, name in _sequence(expected.get("members")) if isinstance(expected, dict) else ():
            if _folded(name) not in names:
                where: Location = ("expected_differences", index, "members", place)
                sentence = f"{name} is no member; members are {', '.join(sorted(names))}"
                found.append(document.problem(where, sentence))
    return found


def _folded(name: Any) -> str:
    return str(name).lower().removesuffix(".")


def _sequence(value: Any) -> list[tuple[int, Any]]:
    return list(enumerate(value)) if isinstance(value, list) else []
