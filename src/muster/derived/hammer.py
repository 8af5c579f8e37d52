"""What Foreman is told of each Ruby Smart Proxy, so that all of them serve the same: commands of ``hammer``."""

from __future__ import annotations

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile, Member
from muster.derived.commands import READ_BY_SH, command, scripted
from muster.derived.output import Document, Output, Site
from muster.derived.ruby_members import host, members
from muster.kernel.errors import Misconfigured

# No title holds it.
_BETWEEN = "|"


def _telling(cluster: ClusterFile, member: Member) -> Document:
    name, foreman = host(member), cluster.foreman
    # In containers Pulp is a Smart Proxy of its own beside the member's (docs/facts/deployment.md §5).
    pulp = f"{name}-pulp" if cluster.generation == "foremanctl" else name
    records = list(dict.fromkeys([name, pulp]))
    head = [
        f"Run where hammer may administer Foreman, once {name} is registered there; again after each change of the",
        "cluster file and of the member's settings. What is so already stays so. What was given to the member beside",
        "it stays as well: nothing is taken away.",
    ]
    commands = [
        # Ends here where the member is not registered.
        *(f"{command('hammer', 'proxy', 'info', '--name', one)} >/dev/null" for one in records),
        *(_assigned("organization", title, one) for title in foreman.organizations for one in records),
        *(_assigned("location", title, one) for title in foreman.locations for one in records),
    ]
    if foreman.download_policy is not None:
        policy = ("--download-policy", foreman.download_policy)
        commands.append(command("hammer", "proxy", "update", "--name", pulp, *policy))
    commands += [command("hammer", "proxy", "refresh-features", "--name", one) for one in records]
    commands += _carried(cluster, pulp)
    return scripted(f"{name}/hammer.sh", head, commands)


def _assigned(kind: str, title: str, record: str) -> str:
    # One within another is known by its title only.
    by = "--title" if "/" in title else "--name"
    return command("hammer", kind, "add-smart-proxy", by, title, "--smart-proxy", record)


def _carried(cluster: ClusterFile, record: str) -> list[str]:
    """Return how the proxy gets its lifecycle environments: Foreman refuses one that it has, so it is asked first."""
    environments = cluster.foreman.lifecycle_environments
    if not environments:
        return []
    if not cluster.foreman.organizations:
        raise Misconfigured("Lifecycle environments are an organisation's: set foreman.organizations")
    # Both words were called otherwise in 2018 (docs/facts/deployment.md §3.8).
    is_old = cluster.generation == "seed"
    content, option = ("capsule", "--environment") if is_old else ("proxy", "--lifecycle-environment")
    whose = ("--name", record, "--organization", cluster.foreman.organizations[0])
    table = ("hammer", "--no-headers", "--csv", "--csv-separator", _BETWEEN)
    found = [f"carried=$({command(*table, content, 'content', 'lifecycle-environments', *whose)})"]
    for one in environments:
        asked = command("grep", "-Fq", f"{_BETWEEN}{one}{_BETWEEN}")
        found += [
            f"printf '%s\\n' \"$carried\" | {asked} ||",
            "  " + command("hammer", content, "content", "add-lifecycle-environment", *whose, option, one),
        ]
    return [*found, command("hammer", content, "content", "synchronize", "--name", record, "--async")]


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    return tuple(_telling(cluster, member) for member in members(cluster, site))


OUTPUT = Output(
    word="hammer",
    help=("Render what Foreman is told of each Ruby Smart Proxy: organisations, locations, content."),
    goes="Where `hammer` may administer Foreman: each script tells it of one member, and has its features refreshed.",
    rendered=_documents,
    needs=frozenset({"member"}),
    check=READ_BY_SH,
    in_directory=True,
    output_help="Write the scripts into that directory, a directory below it for each member, instead of showing them.",
)
