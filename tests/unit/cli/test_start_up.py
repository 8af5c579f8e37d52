"""Start-up is what people wait for most often: commands load nothing they do not use."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click import Context

from muster.cli import muster
from muster.cli.local.files import prepare
from muster.cli.local.plan import planned
from muster.cli.options import CommandFiles, first_sentence
from muster.cluster.roster import Roster
from muster.derived.outputs import WORDS
from muster.kernel.secrets import Secret
from muster.pki.authority import ClusterCA
from muster.store.engine import opened

CLUSTER = """\
schema: 1
cluster: demo
address: proxy.test
store: {{url: "sqlite:///{store}"}}
members: [{{id: 1, name: proxy01.test, address: 127.0.0.11}}]
services: {{puppetca: {{enabled: false}}, puppet: {{enabled: false}}, smartproxy: {{member_port: 1}}}}
"""
_RUN = """\
import json, sys
from muster.cli import main
sys.argv = ["muster", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
# Servers, clients and drivers that a command which asks once has no use for; what serves; what only people look at.
NEVER = (
    "aiohttp", "aiosqlite", "alembic", "attr", "dns", "greenlet", "httptools", "prometheus_client", "psycopg",
    "pygments", "rich", "sqlalchemy", "structlog", "uvicorn", "muster.app.member", "muster.app.balancer",
    "muster.authority.api", "muster.edge.application", "muster.edge.routes", "muster.features.dns.api",
    "muster.features.dns.manifest", "muster.features.puppetca.api", "muster.features.dns.settings",
    "muster.cluster.decide", "muster.policy.metered", "muster.store.engine", "muster.store.tables",
)  # fmt: skip
# What a member of features dns and logs on SQLite has no use for, in MB: it would hold them for as long as it runs.
MEMBER_NEVER = (
    "aiohttp", "alembic", "attr", "jinja2", "jwt", "psycopg", "pygments", "rich", "sqlalchemy.dialects.postgresql",
    "sqlalchemy.orm", "muster.app.balancer", "muster.authority.api",
)  # fmt: skip
_MEMBER = """\
import asyncio, json, sys
from pathlib import Path
from muster.app.member import MemberOptions, member_opened
from muster.store.leases import Leases

async def main(cluster, pki, name):
    async with member_opened(MemberOptions(Path(cluster), name, Path(pki))) as member:
        await member.store.ping()
        await Leases(member.store).acquire("test", name, 10)
        await asyncio.sleep(0.5)
        print(json.dumps(sorted(sys.modules)))

asyncio.run(main(*sys.argv[1:]))
"""
# What takes longest of all: the store's library, certificates, schemas.
HELP_NEVER = (
    *NEVER, "asyncio", "cryptography", "pydantic", "yaml", "muster.cluster", "muster.pki", "muster.store",
)  # fmt: skip


def loaded_by(*arguments: str) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    modules = done.stderr.strip().splitlines()[-1]
    return done.returncode, set(json.loads(modules))


def test_a_member_holds_no_library_that_it_does_not_use(tmp_path: Path) -> None:
    plan = planned(tmp_path, members=1)
    prepare(plan)

    async def make_schema() -> None:
        async with opened(Secret(plan.store_url)) as store:
            await store.ping()

    asyncio.run(make_schema())
    done = subprocess.run(
        [sys.executable, "-c", _MEMBER, plan.cluster_file, plan.pki, plan.names[0]],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"sqlalchemy", "aiosqlite", "muster.edge.application"} <= loaded
    assert loaded & set(MEMBER_NEVER) == set()


@pytest.mark.parametrize("command", ["status", "doctor", "parity"])
def test_who_asks_once_loads_no_server_and_no_great_client(command: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.format(store=tmp_path / "store.db"))
    ClusterCA.create(tmp_path / "pki", "demo", now=datetime.now(UTC))

    async def prepare() -> None:
        async with opened(Secret(f"sqlite:///{tmp_path / 'store.db'}")) as store:
            await Roster(store).seen()

    # Whoever comes first makes the schema, and loads what that takes.
    asyncio.run(prepare())
    where = ["--cluster", str(file), *(["--run", str(tmp_path)] if command != "parity" else [])]
    code, loaded = loaded_by(command, "--json", *where)
    # Nobody answers: it has come to the end of its work.
    assert code in (1, 4)
    assert loaded & set(NEVER) == set()


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ("{provider: memory}", set()),
        ("{nsupdate: {server: 127.0.0.11, port: 1}}", {"dns"}),
        ("{provider: smart_proxy, smart_proxy: {url: 'https://127.0.0.11:1'}}", {"dns", "aiohttp"}),
    ],
)
def test_the_doctor_loads_what_asks_the_dns_server_where_there_is_one(
    settings: str, needed: set[str], tmp_path: Path
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.format(store=tmp_path / "store.db") + f"features: {{dns: {settings}}}\n")
    ClusterCA.create(tmp_path / "pki", "demo", now=datetime.now(UTC))
    _, loaded = loaded_by("doctor", "--json", "--cluster", str(file), "--run", str(tmp_path))
    assert loaded & {"dns", "aiohttp"} == needed


def test_what_follows_from_the_file_alone_is_rendered_without_any_feature(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.format(store=tmp_path / "store.db"))
    code, loaded = loaded_by("render", "table", "--cluster", str(file))
    assert code == 0
    assert loaded & set(NEVER) == set()
    assert loaded & {f"muster.derived.{word.replace('-', '_')}" for word in WORDS} == {"muster.derived.table"}


def test_help_loads_no_command() -> None:
    code, loaded = loaded_by("--help")
    assert code == 0
    assert loaded & set(HELP_NEVER) == set()
    assert {m for m in loaded if m.startswith("muster.cli.")} == {"muster.cli.options"}


@pytest.mark.parametrize("group", ["ca", "certs", "config", "content", "render"])
def test_the_help_of_a_group_loads_none_of_its_commands(group: str) -> None:
    code, loaded = loaded_by(group, "--help")
    assert code == 0
    assert loaded & set(HELP_NEVER) == set()
    assert {m for m in loaded if m.startswith("muster.cli.")} == {"muster.cli.options", f"muster.cli.{group}"}


@pytest.mark.parametrize(
    ("group", "command"), [("ca", "list_"), ("certs", "show"), ("config", "check"), ("content", "status")]
)
def test_a_command_loads_no_other_of_its_group(group: str, command: str) -> None:
    _, loaded = loaded_by(group, command.rstrip("_"), "--help")
    commands = {f"muster.cli.{group}.{file}" for file, _ in group_of(group).files.values()}
    assert loaded & commands == {f"muster.cli.{group}.{command}"}


def group_of(name: str) -> CommandFiles:
    found = muster.get_command(Context(muster), name)
    assert isinstance(found, CommandFiles)
    return found


@pytest.mark.parametrize("group", ["", "ca", "certs", "config", "content"])
def test_the_list_of_commands_says_what_the_commands_say(group: str) -> None:
    commands = group_of(group) if group else muster
    assert isinstance(commands, CommandFiles)
    context = Context(commands)
    found = {name: commands.get_command(context, name) for name in commands.files}
    assert dict(commands.told(context)) == {n: first_sentence(c.help or "") for n, c in found.items() if c}
    assert [c.name for c in found.values() if c] == list(commands.files)
