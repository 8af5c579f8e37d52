"""``muster config``: check the cluster file, show it as understood, print its schema."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli import INVALID_SETTINGS
from muster.cli.options import cluster_option, json_option, print_json


@click.group()
def config() -> None:
    """Check and show the cluster file."""


@config.command()
@cluster_option
@json_option
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
def check(cluster_path: Path, as_json: bool, file: Path | None) -> int:
    """Print every problem of the cluster file with its line; exit 3 when there is one. Warnings leave it valid."""
    from muster.app.settings import checked, warnings

    path = file or cluster_path
    cluster, problems = checked(path)
    doubts = warnings(path, cluster) if cluster is not None else []
    if as_json:
        print_json(
            {
                "file": str(path),
                "valid": cluster is not None,
                "problems": [p.as_json() for p in problems],
                "warnings": [d.as_json() for d in doubts],
            }
        )
    else:
        for problem in problems:
            click.echo(f"{path}: {problem}")
        for doubt in doubts:
            click.echo(f"{path}: warning: {doubt}")
        if cluster is not None:
            click.echo(f"{path}: valid; {len(cluster.members)} members, profile {cluster.profile}")
        else:
            click.echo(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}", err=True)
    return 0 if cluster is not None else INVALID_SETTINGS


@config.command()
@cluster_option
@json_option
def show(cluster_path: Path, as_json: bool) -> None:
    """Print the cluster file as Muster understands it, defaults filled in, secrets hidden."""
    import yaml

    from muster.app.settings import loaded

    content = loaded(cluster_path).model_dump(mode="json", by_alias=True)
    if as_json:
        print_json(content)
    else:
        click.echo(yaml.safe_dump(content, sort_keys=False), nl=False)


@config.command()
def schema() -> None:
    """Print the cluster file's JSON Schema, for editors; features' own settings included."""
    from muster.cluster.file import SCHEMA_VERSION, ClusterFile
    from muster.features import settings_models

    content = ClusterFile.model_json_schema(by_alias=True)
    content["$id"] = f"muster-cluster-{SCHEMA_VERSION}"
    models = {
        n: m.model_json_schema(ref_template=f"#/$defs/feature-{n}/$defs/{{model}}")
        for n, m in settings_models().items()
    }
    content["$defs"].update({f"feature-{n}": m for n, m in models.items()})
    content["properties"]["features"] = {
        "type": "object",
        "description": "Settings of each feature.",
        "properties": {n: {"$ref": f"#/$defs/feature-{n}"} for n in models},
        "additionalProperties": False,
    }
    print_json(content)
