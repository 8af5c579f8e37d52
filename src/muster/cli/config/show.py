"""``muster config show``: the cluster file as Muster understands it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import cluster_option, json_option, print_json

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile


@click.command()
@cluster_option
@json_option
def show(cluster_path: Path, as_json: bool) -> None:
    """Print the cluster file as Muster understands it: the generation's services and all defaults filled in.

    Secrets are hidden; of the store's URL only its password.
    """
    import yaml

    from muster.app.settings import loaded

    content = understood(loaded(cluster_path))
    if as_json:
        print_json(content)
    else:
        click.echo(yaml.safe_dump(content, sort_keys=False), nl=False)


def understood(cluster: ClusterFile) -> dict[str, Any]:
    """Return a cluster file's whole meaning: what the generation has stands where a change to it would."""
    from muster.app.offers import modelled
    from muster.features import settings_models
    from muster.store.place import Place

    content: dict[str, Any] = cluster.model_dump(mode="json", by_alias=True)
    # The older word for the generation, which is there.
    del content["profile"]
    offered = {s.name: s for s in modelled(cluster).services}
    names = dict.fromkeys([*offered, *content["services"]])
    content["services"] = {
        name: {
            **content["services"].get(name, {}),
            "enabled": name in offered,
            **(
                {
                    "listen_port": s.listen_port,
                    "also_listen_ports": list(s.also_listen_ports),
                    "member_port": s.member_port,
                    "traffic": s.traffic,
                    "balance": s.balance,
                    "destinations": s.destinations,
                }
                if (s := offered.get(name)) is not None
                else {}
            ),
        }
        for name in names
    }
    models = settings_models()
    for name, given in cluster.features.items():
        # As they stand in the file, but for what the feature calls a secret.
        content["features"][name] = models[name].model_validate(given).model_dump(mode="json", exclude_unset=True)
    content["store"]["url"] = Place.parsed(cluster.store.url).shown_url
    return content
