"""TFTP: Foreman writes boot loader configurations, has boot files fetched, and asks which server has them."""
