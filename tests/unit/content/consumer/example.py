"""A package to look at."""

from __future__ import annotations

from muster.content.consumer.contents import CA, PROGRAM, TOLD, Contents, File

EXAMPLE = Contents(
    "katello-ca-consumer-proxy.example.com",
    (File(CA, "a CA\n"), File(PROGRAM, "#!/usr/bin/env python3\nprint('done')\n", 0o755), File(TOLD, "{}\n")),
    ("katello-ca-consumer-p1.example.com",),
    installed="true\n",
    removed="true\n",
    summary="An example",
)
