"""The Puppet CA as the whole cluster: any member signs, revokes and answers, because the ledger is in the store."""
