"""Muster's own version. The one Foreman is told is a setting: ``foreman.version`` in the cluster file."""

VERSION = "0.1.0"
