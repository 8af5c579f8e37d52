"""Where calls come in: listeners, mutual TLS, PROXY protocol, trusted hosts, routes, replies, health and metrics."""
