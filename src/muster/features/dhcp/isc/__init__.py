"""What ISC's dhcpd has in its files, read and followed."""
