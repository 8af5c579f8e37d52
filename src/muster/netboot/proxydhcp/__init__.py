"""ProxyDHCP: tells machines what to boot, beside a DHCP server that gives them their addresses and knows nothing of it."""
