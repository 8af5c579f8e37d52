"""What a cluster is made of, as one encrypted file, and the way back onto new hosts."""
