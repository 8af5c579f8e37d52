"""dnsmasq's files: what its configuration, hosts and leases say, and what is written for it."""
