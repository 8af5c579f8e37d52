"""Checked histories: clients record what they called and heard, and a judge says whether that is possible."""
