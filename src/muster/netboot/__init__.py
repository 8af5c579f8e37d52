"""Boot files: one tree for the cluster, the same on every member."""
