"""A local cluster's files: what they are made of before its processes start."""

from __future__ import annotations

import yaml

from muster.cli.local.plan import ADDRESS, FOREMAN, PUPPET_ADMIN, Plan
from muster.kernel.clock import SystemClock
from muster.kernel.files import make_directory, write_atomically
from muster.pki.authority import ClusterCA, ca_paths
from muster.pki.bundles import BundleRequest, paths, write


def prepare(plan: Plan) -> None:
    """Write the cluster file and whatever certificates are missing; an existing CA is kept."""
    for directory in (plan.directory, plan.run, plan.directory / "log", plan.directory / "state"):
        make_directory(directory, mode=0o700)
    write_atomically(plan.cluster_file, yaml.safe_dump(plan.document(), sort_keys=False), mode=0o600)
    now = SystemClock().now()
    ca_file, _ = ca_paths(plan.pki)
    ca = ClusterCA.open(plan.pki) if ca_file.exists() else ClusterCA.create(plan.pki, "local", now=now)
    wanted = [BundleRequest("member", name, (ADDRESS,), (plan.member_address(i),)) for i, name in enumerate(plan.names)]
    wanted += [BundleRequest("client", FOREMAN), BundleRequest("balancer", "balancer")]
    for request in wanted:
        if not paths(plan.pki, request.kind, request.common_name).certificate.exists():
            write(ca.issue(request, now=now), plan.pki)


async def found_puppet_ca(plan: Plan) -> None:
    """Make the Puppet CA and its administrator's certificate, unless an earlier run did."""
    from muster.app.settings import cluster_store, loaded
    from muster.authority.authority import opened
    from muster.authority.ledger.ledger import Ledger
    from muster.authority.moves.founding import Founding, founded
    from muster.authority.own import host_files, key_place, lay_out

    settings = loaded(plan.cluster_file)
    if settings.authority is None:
        return
    key_file = plan.pki / "puppet-ca" / "ca_key.pem"
    async with cluster_store(settings) as store:
        if await Ledger(store, "local").chain() is None:
            founding = Founding(f"Puppet CA: {ADDRESS}", "ec-p256", 3650, key_file)
            await founded(store, settings.authority, founding, member="local")
        if not key_place(plan.administrator, PUPPET_ADMIN).exists():
            async with opened(store, settings.authority, member="local", home=key_file.parent) as ca:
                made = await host_files(ca, PUPPET_ADMIN, [PUPPET_ADMIN])
                lay_out(
                    plan.administrator, PUPPET_ADMIN, made, bundle=ca.chain_pem, lists=(await ca.lists.served()).pem
                )
