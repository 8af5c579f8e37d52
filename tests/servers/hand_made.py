"""Clusters of Ruby Smart Proxies as people make them by hand: HAProxy's file and members' settings, written for tests.

Source: docs/facts/deployment.md §1.2, §1.3 (frontends, backends, ports, timeouts), docs/facts/deployment.md §3.4 (settings).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

NINE = (
    # Frontend, listens, member's port, balance, first member only.
    ("https", 443, 443, "source", False),
    ("http", 80, 80, "roundrobin", False),
    ("anaconda", 8000, 8000, "roundrobin", False),
    ("scap", 9090, 9090, "roundrobin", False),
    ("amqp", 5647, 5647, "roundrobin", False),
    ("puppet", 8140, 8140, "roundrobin", False),
    ("puppet-ca", 8141, 8140, "roundrobin", True),
    ("rhsm", 8443, 8443, "roundrobin", False),
    ("docker", 5000, 5000, "roundrobin", False),
)
"""What the balancer of 2018 had."""
FOUR = (
    ("https", 443, 443, "source", False),
    ("http", 80, 80, "roundrobin", False),
    ("anaconda", 8000, 8000, "roundrobin", False),
    ("smart-proxy", 9090, 9090, "roundrobin", False),
)
"""What is left of it in 2025."""


def haproxy_cfg(
    rows: Iterable[tuple[str, int, int, str, bool]],
    hosts: Sequence[str],
    *,
    bind: str = "*",
    stats: str = "/var/lib/haproxy/stats",
    account: bool = True,
) -> str:
    """Return a balancer's file with a frontend and a backend for each row."""
    lines = ["global", "  log 127.0.0.1 local2", "  maxconn 4000", f"  stats socket {stats}"]
    lines += ["  chroot /var/lib/haproxy", "  user haproxy", "  group haproxy", "  daemon"] if account else []
    lines += ["", "defaults", "  log global", "  option dontlognull", "  retries 3", "  maxconn 3000"]
    timeouts = {
        "http-request": "10s", "queue": "1m", "connect": "10s", "client": "1m", "server": "1m", "http-keep-alive": "10s",
        "check": "10s",
    }  # fmt: skip
    lines += [f"  timeout {name} {value}" for name, value in timeouts.items()]
    for name, listen, port, balance, first in rows:
        lines += ["", f"frontend {name}", f"  bind {bind}:{listen}", "  mode tcp", "  option tcplog"]
        lines += [f"  default_backend f-proxy-{name}", "", f"backend f-proxy-{name}", "  option tcp-check"]
        lines += [f"  balance {balance}"]
        lines += [f"  server f-proxy-{name}-{n} {h}:{port} check" for n, h in enumerate(hosts[: 1 if first else None])]
    return "\n".join(lines) + "\n"


def settings_of(
    directory: Path,
    member: str,
    *,
    address: str,
    foreman: str = "foreman.example.net",
    main: Mapping[str, str] = {},
    files: Mapping[str, str] = {},
) -> Path:
    """Write a member's ``/etc/foreman-proxy`` into a directory; ``files`` stand for those of modules, by name."""
    own = {
        ":settings_directory:": "/etc/foreman-proxy/settings.d",
        ":ssl_ca_file:": "/etc/foreman-proxy/ssl_ca.pem",
        ":foreman_url:": f"https://{foreman}",
        ":trusted_hosts:": f"[{foreman}, {member}]",
        ":http_port:": "8000",
        ":https_port:": "9090",
        ":log_level:": "INFO",
        **main,
    }
    modules = {
        "registration": f":enabled: true\n:registration_url: https://{address}:9090\n",
        "templates": f":enabled: true\n:template_url: http://{address}:8000\n",
        "pulpcore": (
            f":enabled: https\n:pulp_url: https://{member}\n:mirror: true\n"
            f":content_app_url: https://{address}/pulp/content\n:rhsm_url: https://{address}:443/rhsm\n"
        ),
        "container_gateway": (
            f":enabled: https\n:pulp_endpoint: https://{member}\n:client_endpoint: https://{address}\n"
            ":db_connection_string: postgres://gateway:hidden@localhost/gateway\n"
        ),
        "dns": ":enabled: false\n:use_provider: dns_nsupdate\n",
        "puppet": ":enabled: https\n",
        "puppet_proxy_puppet_api": f":puppet_url: https://{member}:8140\n",
        **files,
    }
    (directory / "settings.d").mkdir(parents=True)
    (directory / "settings.yml").write_text("---\n" + "".join(f"{k} {v}\n" for k, v in own.items()))
    for name, content in modules.items():
        (directory / "settings.d" / f"{name}.yml").write_text(f"---\n{content}")
    return directory
