"""The cluster's shared SQL: one engine, units of work, migrations, and leases with epochs."""
