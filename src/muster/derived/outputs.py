"""The list of what follows from the cluster file alone; features offer what needs their settings."""

from __future__ import annotations

from muster.derived import envoy, haproxy, keepalived, nginx, puppet_conf, table
from muster.derived.output import Output

OUTPUTS: tuple[Output, ...] = (
    haproxy.OUTPUT,
    keepalived.OUTPUT,
    nginx.OUTPUT,
    envoy.OUTPUT,
    table.OUTPUT,
    puppet_conf.OUTPUT,
)
