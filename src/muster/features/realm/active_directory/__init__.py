"""What provider ``ad`` asks a domain controller: accounts of computers, over LDAP."""
