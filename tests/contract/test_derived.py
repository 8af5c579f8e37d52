"""What is derived, read by the programs it is for: each accepts what is rendered and refuses what was spoilt."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.app.offers import modelled
from muster.app.outputs import offers
from muster.balancer.haproxy.binary import has_ipv6
from muster.cli import muster
from muster.cluster.file import ClusterFile
from muster.derived import nginx
from muster.derived.keepalived import CHECK_SCRIPT
from muster.derived.nginx import NginxPaths
from muster.derived.output import Document, Output, Site
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.settings import parse
from tests.servers import available
from tests.servers.haproxy import Pki, free_ports
from tests.servers.namespaces import DEVICE, segment
from tests.unit.derived.test_outputs import EVERY, GENERATIONS

CHECKED = {o.output.word: o.output for o in offers() if o.output.check is not None}

# What of a document is spoilt, into what, and what of that its consumer must name. A new output says it here.
SPOILT = {
    "haproxy": ("option redispatch", "option redispach", "redispach"),
    "keepalived": ("nopreempt", "nopreempted", "nopreempted"),
    "nginx": ("worker_connections", "worker_connection", "worker_connection"),
    "envoy": ('"stat_prefix"', '"stat_prefixes"', "stat_prefixes"),
    "puppet-conf": ("[main]", "[main", "main"),
    "dnf-repos": ("[baseos]", "[baseos", "baseos"),
    "apt-sources": ("Types: deb", "Type: deb", "Malformed"),
    "dns-zone": (" IN A ", " IN AX ", "AX"),
    **dict.fromkeys(("ruby-settings", "custom-hiera"), (': "', ': ""', "did not find expected key")),
    **dict.fromkeys(
        ("certs-generate", "foreman-installer", "foremanctl", "hammer"), ("set -eu", "set -eu (", "unexpected")
    ),
    "firewalld": ("tcp-reset", "tcp-reseet", "tcp-reseet"),
    "systemd": ("Environment=", "Environments=", "Unknown key 'Environments'"),
    "ufw": ("proto tcp", "proto tpc", "tpc"),
    "nftables": ("tcp reset", "tcp reseet", "reseet"),
    "ansible": ("hosts:", "hostss:", "hostss"),
    "prometheus": (" == 0", " == = 0", "could not parse expression"),
}

CLUSTER = """\
schema: 1
cluster: demo
address: cluster.test
store: {{url: "sqlite:////nowhere/x.db"}}
generation: {generation}
members:
- {{id: 1, name: proxy01.test, address: 10.231.7.21}}
- {{id: 2, name: proxy02.test, address: "fd00::2", kind: foreman}}
balancers:
- {{name: lb1, address: 10.231.7.11, bind: 127.0.0.31}}
- {{name: lb2, address: 10.231.7.12}}
virtual_address: {{address: 10.231.7.100/24, interface: {device}, script_user: root}}
signer: proxy01.test
network: {{dns_zone: test, foreman: [10.231.7.5/32]}}
content:
  mirror:
    repositories:
      baseos: {{kind: yum, url: https://origin.example.net/baseos}}
      debian: {{kind: deb, url: https://origin.example.net/debian, suites: [bookworm], components: [main, contrib]}}
foreman: {{url: "https://foreman.test", organizations: [Ops], lifecycle_environments: [Library]}}
services: {services}
"""


def document(generation: str, services: str = "{}") -> str:
    return CLUSTER.format(generation=generation, device=DEVICE, services=services)


def on_free_ports(generation: str) -> str:
    """The cluster file with ports that nobody listens on: nginx -t opens them."""
    # Containers have no Puppet CA before the file names one.
    named = document(generation, "{puppetca: {}}")
    names = [s.name for s in modelled(parse(named).parsed(ClusterFile)).services]
    *ports, second = free_ports("127.0.0.31", len(names) + 1)
    also = {"smartproxy": f", also_listen_ports: [{second}]"}
    changes = (
        f"{n}: {{listen_port: {p}{also.get(n, '')}, maxconn_per_member: 50}}" for n, p in zip(names, ports, strict=True)
    )
    return document(generation, "".join(f"\n  {one}" for one in changes))


@dataclass(frozen=True)
class Reader:
    """A host on which the output's consumer is installed.

    Attributes:
        options: what the command has to be told about it.
    """

    output: Output
    site: Site
    options: tuple[str, ...]


@pytest.fixture(params=list(CHECKED))
def reader(
    request: pytest.FixtureRequest, needs: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reader]:
    output = CHECKED[request.param]
    assert output.check is not None
    needs(output.check.consumer)
    Pki.made(tmp_path / "pki" / "balancer")
    (tmp_path / "run").mkdir()
    site = Site(run=tmp_path / "run", pki=tmp_path / "pki" / "balancer", balancer="lb1", dual_stack=has_ipv6())
    places = {
        "pki": ("--pki", str(tmp_path / "pki")),
        "run": ("--run", str(tmp_path / "run")),
        "balancer": ("--balancer", "lb1"),
        "member": (),
    }
    options = tuple(word for need in sorted(output.needs) for word in places.get(need, ()))
    with ExitStack() as stack:
        if output.word == "keepalived":
            needs("namespaces")
            # keepalived runs no script from where anybody but root can change it.
            owned = stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-test-", dir="/run"))
            script = Path(owned) / "answers"
            script.write_text(CHECK_SCRIPT)
            script.chmod(0o755)
            (host,) = stack.enter_context(segment("lb1"))
            _first_on_path(
                tmp_path / "bin", monkeypatch, "keepalived", *host.command(str(available.sbin("keepalived")))
            )
            site, options = replace(site, given={"script_path": script}), (*options, "--script-path", str(script))
        elif output.word in ("nftables", "ufw"):
            # They ask the kernel, and this host's own rules are none of a test's business.
            needs("namespaces")
            (host,) = stack.enter_context(segment("lb1"))
            program = output.check.consumer
            _first_on_path(tmp_path / "bin", monkeypatch, program, *host.command(str(available.sbin(program))))
        elif output.word == "envoy":
            _first_on_path(tmp_path / "bin", monkeypatch, "envoy", str(available.envoy()))
        yield Reader(output, site, options)


def _first_on_path(directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, *command: str) -> None:
    """Let the name stand for a command, as it would on a host where the program is installed."""
    directory.mkdir()
    program = directory / name
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


@pytest.mark.parametrize("generation", ["seed", "installer", "foremanctl"])
def test_the_consumer_accepts_what_is_rendered(reader: Reader, generation: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(on_free_ports(generation))
    arguments = ["render", reader.output.word, "--cluster", str(file), *reader.options, "--check"]
    said = CliRunner().invoke(muster, [*arguments, "--output", str(tmp_path / "out")])
    if generation not in GENERATIONS.get(reader.output.word, EVERY):
        assert isinstance(said.exception, Misconfigured)
        return
    assert (said.exit_code, said.exception) == (0, None)
    assert "Wrote" in said.stdout
    assert list(reader.site.run.iterdir()) == []


@pytest.mark.anyio
async def test_the_consumer_refuses_what_was_spoilt_in_its_own_words(reader: Reader, tmp_path: Path) -> None:
    output = reader.output
    generation = GENERATIONS.get(output.word, ("installer",))[0]
    cluster = parse(on_free_ports(generation)).parsed(ClusterFile)
    directory = tmp_path / "spoilt"
    directory.mkdir()
    site = replace(reader.site, place=directory)
    if output.learned is not None:
        site = replace(site, given={**site.given, **await output.learned()})
    part, instead, words = SPOILT[output.word]
    documents = [
        replace(d, text=d.text.replace(part, instead)) for d in output.rendered(modelled(cluster), cluster, site)
    ]
    assert any(instead in d.text for d in documents)
    for one in documents:
        (directory / one.name).parent.mkdir(parents=True, exist_ok=True)
        (directory / one.name).write_text(one.text)
    assert output.check is not None
    with pytest.raises(Rejected, match=words):
        await output.check.asked(directory, documents)


@pytest.mark.anyio
async def test_an_nginx_without_its_stream_module_says_what_it_lacks(
    needs: Callable[[str], None], tmp_path: Path
) -> None:
    needs("nginx")
    if not list(Path("/etc/nginx/modules-enabled").glob("*stream*")):
        pytest.skip("nginx: this one has its stream module built in")
    cluster = parse(on_free_ports("installer")).parsed(ClusterFile)
    paths = NginxPaths(tmp_path, ())
    text = nginx.rendered(cluster, modelled(cluster), which=cluster.balancer("lb1"), paths=paths)
    (tmp_path / "nginx.conf").write_text(text)
    assert nginx.OUTPUT.check is not None
    with pytest.raises(Rejected, match="stream"):
        await nginx.OUTPUT.check.asked(tmp_path, [Document("nginx.conf", text, "nginx")])
