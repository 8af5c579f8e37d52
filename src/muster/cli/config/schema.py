"""``muster config schema``: what editors check a cluster file with."""

from __future__ import annotations

import click

from muster.cli.options import print_json


@click.command()
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
