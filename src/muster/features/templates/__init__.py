"""The Templates feature: hosts that are installed fetch their templates, and say that they are done, through the cluster."""
