"""The package ``katello-ca-consumer-ADDRESS``, which hosts install: made once, and the same from every member."""
