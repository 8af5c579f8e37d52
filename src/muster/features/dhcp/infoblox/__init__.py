"""Infoblox' web API: its calls, and what its objects say."""
