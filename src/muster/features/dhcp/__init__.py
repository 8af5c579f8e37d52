"""DHCP: reservations of the hosts Foreman manages, what is leased, and addresses that nobody uses."""
