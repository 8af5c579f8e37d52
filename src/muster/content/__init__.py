"""What hosts fetch on 443, 80, 8443 and 5000: paths of Pulp, Foreman and a registry, answered by every member."""
