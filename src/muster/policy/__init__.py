"""Decorators for any contract: deadline, retry, metered. Written once, read an operation's mark, know no feature."""
