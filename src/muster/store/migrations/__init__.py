"""The schema's history, forward only; ``README.md`` has the rules."""
