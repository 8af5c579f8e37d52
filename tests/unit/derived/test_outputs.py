"""What holds for every output, so that one that is new needs no test of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.balancer.haproxy.version import HAProxyVersion
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site
from muster.derived.outputs import outputs
from muster.kernel.errors import Misconfigured, Rejected
from tests.unit.balancer.test_model import document

TWO = """\
balancers:
- {name: lb1, address: 10.0.0.7}
- {name: lb2, address: 10.0.0.8}
virtual_address: {address: 10.0.0.10/24, interface: eth0}
# Containers have no Puppet CA before the file names one.
services: {puppetca: {}, mqtt: {}}
network: {dns_zone: test, foreman: [10.0.0.5/32]}
content:
  mirror:
    repositories:
      baseos: {kind: yum, url: https://origin.example.net/baseos}
      debian: {kind: deb, url: https://origin.example.net/debian, suites: [bookworm], components: [main]}
"""
# Of which generations an output is, where it is not of all; the first is looked at where one is enough.
GENERATIONS = {
    "certs-generate": ("installer", "seed"),
    "foreman-installer": ("installer", "seed"),
    "foremanctl": ("foremanctl",),
    "custom-hiera": ("seed",),
}
EVERY = ("installer", "seed", "foremanctl")
# What outputs for Ruby members want to know besides; members come first, because those of the head do.
RUBY = """\
- {id: 13, name: proxy03.test, address: 10.0.0.3, kind: foreman}
signer: proxy02.test
foreman: {url: "https://foreman.test", organizations: [Ops], lifecycle_environments: [Library]}
"""
ALSO = dict.fromkeys(
    ("ruby-settings", "certs-generate", "foreman-installer", "foremanctl", "custom-hiera", "hammer"), RUBY
)
# What this host would have told.
LEARNED: dict[str, dict[str, Any]] = {"haproxy": {"version": HAProxyVersion(2, 6)}}

PATH = r"[A-Za-z0-9_@-][A-Za-z0-9._@-]*(/[A-Za-z0-9_@-][A-Za-z0-9._@-]*)+"

every = pytest.mark.parametrize("output", outputs(), ids=lambda o: o.word)


def site(
    output: Output, *, run: Path = Path("/run/muster"), balancer: str | None = "lb1", member: str | None = None
) -> Site:
    return Site(run=run, balancer=balancer, member=member, given=LEARNED.get(output.word, {}))


def clusters(output: Output, rest: str = TWO) -> list[ClusterFile]:
    """One cluster of each generation that has the output, the usual one first."""
    words = GENERATIONS.get(output.word, EVERY)
    return [document(f"{ALSO.get(output.word, '')}generation: {w}\n{rest}").parsed(ClusterFile) for w in words]


def documents(output: Output, **where: Any) -> tuple[Document, ...]:
    cluster = clusters(output)[0]
    return output.rendered(modelled(cluster), cluster, site(output, **where))


@every
def test_the_same_file_gives_the_same_documents(output: Output) -> None:
    for cluster in clusters(output, TWO):
        first, second = (output.rendered(modelled(cluster), cluster, site(output)) for _ in range(2))
        assert first
        assert first == second


@every
def test_what_an_output_is_not_for_is_said_in_a_sentence(output: Output) -> None:
    for word in set(EVERY) - set(GENERATIONS.get(output.word, EVERY)):
        cluster = document(f"{RUBY}generation: {word}\n").parsed(ClusterFile)
        with pytest.raises(Misconfigured, match=word):
            output.rendered(modelled(cluster), cluster, site(output))


@every
def test_documents_are_named_end_with_a_line_and_say_who_reads_them(output: Output) -> None:
    found = documents(output)
    assert found
    assert output.in_directory or len(found) == 1
    assert len({d.name for d in found}) == len(found)
    for one in found:
        assert one.name == Path(one.name).name or (output.in_directory and re.fullmatch(PATH, one.name))
        assert one.text.endswith("\n")
        assert not one.mode & 0o022
        assert output.check is None or one.consumer == output.check.consumer


@every
def test_programs_are_shown_json_without_anything_learned(output: Output) -> None:
    cluster = clusters(output)[0]
    bare = Site(balancer="lb1")
    # Without a form of its own each text stands under its name (derived/output.py).
    shown = output.as_json or (lambda *given: {d.name: d.text for d in output.rendered(*given)})
    assert json.loads(json.dumps(shown(modelled(cluster), cluster, bare), default=str))


@every
def test_what_it_does_is_one_sentence(output: Output) -> None:
    for sentence in (output.help, *(o.help for o in output.options), *([output.check.help] if output.check else [])):
        assert sentence.rstrip("]").endswith(".") or "[default: " in sentence
        assert ". " not in sentence.split(" [default")[0]


@every
def test_where_it_goes_is_said_to_people(output: Output) -> None:
    assert re.fullmatch(r"[A-Z`][^\n]{10,300}\.", output.goes)


@every
def test_only_what_is_for_members_minds_which(output: Output) -> None:
    if "member" not in output.needs:
        return
    assert len(documents(output, member="proxy02.test")) < len(documents(output))
    with pytest.raises(Rejected, match="proxy02"):
        documents(output, member="nobody.test")


@every
def test_only_what_needs_a_balancer_minds_which(output: Output) -> None:
    if "balancer" not in output.needs:
        documents(output, balancer=None)
        return
    with pytest.raises(Rejected, match="lb1, lb2"):
        documents(output, balancer=None)


@every
def test_only_what_needs_the_run_directory_holds_it(output: Output) -> None:
    for need, place in (("run", "/run/muster"), ("pki", "/etc/muster/pki/balancer")):
        assert any(place in d.text for d in documents(output)) is (need in output.needs)


@every
def test_what_the_consumer_lacks_is_said_once(output: Output) -> None:
    cluster = clusters(output)[0]
    texts = "".join(d.text for d in documents(output))
    for sentence in output.lacks(modelled(cluster), cluster, site(output)):
        assert (sentence in texts) is output.says_lacks


@every
def test_a_place_in_words_is_the_place(output: Output) -> None:
    if output.installed is not None:
        where = output.installed.of(site(output))
        assert where.is_absolute()
        assert str(where) in output.installed.said or where.name in output.installed.said
