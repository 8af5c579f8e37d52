"""Who holds the CA's private key: a file, an encrypted file, a process of its own, or a PKCS#11 token."""
