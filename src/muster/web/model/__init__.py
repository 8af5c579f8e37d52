"""What the page says, section by section: pure functions from what commands print with ``--json`` to what templates show."""
