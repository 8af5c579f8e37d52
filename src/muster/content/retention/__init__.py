"""Packages that newer versions drop: whether Pulps keep them, and keepers for those that do not."""
