"""Our conversation with other Smart Proxies (and, in later issues, with Foreman itself)."""
