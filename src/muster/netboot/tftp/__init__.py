"""A TFTP server: boot files of one directory, read only, to firmware and boot loaders."""
