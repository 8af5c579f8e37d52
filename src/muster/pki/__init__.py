"""The cluster's own TLS: one small CA, the bundles it issues, the contexts made from them, and words for what is wrong.

Foreman verifies members, members verify Foreman, the balancer's checks verify members; all three with certificates of
this room or of a CA the site already has. It knows nothing of the cluster file: callers pass names and paths.
"""
