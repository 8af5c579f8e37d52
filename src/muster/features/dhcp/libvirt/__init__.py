"""A network of libvirt: what virsh says of it."""
