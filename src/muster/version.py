"""Muster's own version. The one Foreman is told is its own (:mod:`muster.foreman.version`)."""

VERSION = "0.1.0"
