"""A boot's story: what members saw of a machine, as one time line."""
