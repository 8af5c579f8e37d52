"""A hand-made cluster of Ruby Smart Proxies, read from its HAProxy's file and its members' settings; pure.

What comes of it is the cluster file that says the same, and what is wrong with the cluster as it is.
"""
