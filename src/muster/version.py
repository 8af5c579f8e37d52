"""The two versions Muster has: its own, and the Smart Proxy protocol version it answers with."""

VERSION = "0.1.0"

# Shown by Foreman beside the proxy. Plugins may compare it, so it is a version of the Ruby proxy whose wire we keep
# (protocol reference §5 and §23), never our own number.
PROTOCOL_VERSION = "3.11.0"
