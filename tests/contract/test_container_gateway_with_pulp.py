"""The container gateway in front of a real Pulp that is set up as the installer does: private but to its administrator."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import yaml

from muster.cli.demo.bind import free_port
from muster.pki.authority import ClusterCA, ca_paths
from tests.contract.test_container_gateway import ALICE, BOB, Katello, listed, mapped
from tests.servers import member, pulp, pulp_api, registry
from tests.servers.client import Place, ask
from tests.servers.clients import Identity, Skopeo
from tests.servers.member import TRUSTED
from tests.servers.packages import Image

# Beside the installer's, who takes no password: by one the test makes what there is.
REMOTE = {
    "AUTHENTICATION_BACKENDS": [
        "django.contrib.auth.backends.ModelBackend", "pulpcore.app.authentication.PulpNoCreateRemoteUserBackend",
    ],
    "REST_FRAMEWORK__DEFAULT_AUTHENTICATION_CLASSES": (
        "rest_framework.authentication.BasicAuthentication", "pulpcore.app.authentication.PulpRemoteUserAuthentication",
    ),
    "REMOTE_USER_ENVIRON_NAME": "HTTP_REMOTE_USER",
}  # fmt: skip


def test_what_katello_lets_a_user_read_he_pulls_from_pulp_and_nobody_else(
    tmp_path: Path, needs: Callable[[str], None]
) -> None:
    for need in ("pulp", "registry", "skopeo"):
        needs(need)
    with contextlib.ExitStack() as stack:
        katello = Katello(free_port("127.0.0.77"))
        stack.enter_context(katello.running())
        one = stack.enter_context(pulp.running("gateway", address="127.0.0.64", settings=REMOTE))
        upstream = stack.enter_context(registry.running(tmp_path))
        digest = Image("behind the gateway", padding=50_000).write(tmp_path / "image")
        assert Skopeo(tmp_path / "up").push(tmp_path / "image", f"{upstream.place}/tools:1").is_whole
        made = pulp_api.repository(one.api, "container", "acme-tools")
        made.sync_from(f"http://{upstream.place}", upstream_name="tools")
        one.api.send("PATCH", made.distribution, {"private": True})
        hosts_ca = tmp_path / "katello-ca"
        ClusterCA.create(hosts_ca, "katello", now=datetime.now(UTC))
        front = member.made(
            tmp_path / "front",
            content={
                "services": ["docker"], "pulp_api_url": f"http://{one.address}:{one.api_port}",
                "pulp_content_url": f"http://{one.address}:{one.content_port}",
            },
            features={"container_gateway": {}},
            foreman={
                "trusted_hosts": [TRUSTED], "url": f"http://127.0.0.77:{katello.port}",
                "ca_file": str(ca_paths(hosts_ca)[0]),
            },
            generation="seed",
        )  # fmt: skip
        place = Place(front.https.address, free_port(front.https.address))
        document = yaml.safe_load(front.cluster_file.read_text())
        off = {name: {"enabled": False} for name in ("rhsm", "amqp")}
        document["services"] |= {**off, "docker": {"member_port": place.port}}
        url = f"https://{{address}}:{front.https.port}/container_gateway"
        document["content"]["registry_url"] = url
        front.cluster_file.write_text(yaml.safe_dump(document))
        front.start()
        stack.callback(front.stop)

        def told(route: str, form: str) -> None:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            path = f"/container_gateway/{route}"
            got = ask(front.https, "PUT", path, tls=front.tls(TRUSTED), body=form.encode(), headers=headers)
            assert got.status == 200, got

        told("repository_list", listed({"acme-tools": True}))
        katello.readable["alice"] = ["acme-tools"]
        image = f"{place.address}:{place.port}/acme-tools:1"
        pulled = Skopeo(tmp_path / "alice", Identity(front.ca), account=ALICE).pull(image, "pulled")
        assert digest in pulled.fetched, pulled
        for account in (None, BOB):
            refused = Skopeo(tmp_path / str(account), Identity(front.ca), account=account).pull(image, "pulled")
            assert not refused.is_whole
        told("user_repository_mapping", mapped("users", {"alice": []}))
        catalog = ask(
            place, "GET", "/v2/_catalog", tls=front.tls(), headers={"Authorization": "Bearer unauthenticated"}
        )
        assert json.loads(catalog.body) == {"repositories": []}
