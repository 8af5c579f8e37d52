"""What ISC's dhcpd says and is told: its files, and OMAPI, by which hosts are made and removed while it runs."""
