"""Repositories that members fetch from their origins themselves: synchronised, published, promoted, and given to clients."""
