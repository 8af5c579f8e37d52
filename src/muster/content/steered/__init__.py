"""Pulps that members lead: staged everywhere, then all are turned to the new content; what was decided survives a crash."""
