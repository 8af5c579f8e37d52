"""Kea's DHCPv4 server: asked and changed over its control channel, whose answers are all that is known of it."""
