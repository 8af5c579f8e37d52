"""DNS: create and remove the A, AAAA, CNAME, PTR and SRV records of the hosts Foreman manages."""
