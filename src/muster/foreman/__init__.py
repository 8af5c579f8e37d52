"""Our conversation with other Smart Proxies, and with Foreman itself."""
