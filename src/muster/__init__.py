"""Muster: Foreman Smart Proxies that work as one."""

from muster.version import VERSION

__all__ = ["VERSION"]
