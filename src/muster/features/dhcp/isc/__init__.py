"""ISC dhcpd: its configuration and leases read and followed, its hosts made and removed over OMAPI."""
