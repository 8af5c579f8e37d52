"""The ledger: every certificate, request and revocation of the Puppet CA, in the store."""
