"""The Pulpcore feature: Foreman learns where a Pulp is, what it can do and how it is."""
