"""What machines boot from the network with: boot files and who hands them out."""
