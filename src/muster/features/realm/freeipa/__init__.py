"""What provider ``freeipa`` asks: a session by Kerberos, and calls in JSON."""
