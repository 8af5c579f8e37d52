"""The Puppet CA feature: Foreman lists, signs and cleans certificates, and says which hosts may be signed unasked."""
