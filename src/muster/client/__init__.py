"""What a host runs to join a cluster: one file, of the standard library alone, that knows nothing of the rest of Muster."""
