"""A whole cluster on this host's loopback addresses: its file, its certificates, its processes.

Members listen on 127.0.0.11 and up, the balancer on 127.0.0.1, and the balancer's own connections come from 127.0.0.10, so
that members can tell it from everybody else, as on separate hosts.
"""
