"""External IPAM: the next free address of a subnet, and which addresses are in use, kept where an IPAM keeps them."""
