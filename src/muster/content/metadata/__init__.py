"""What repositories say of themselves: readers of repomd, primary, treeinfo, Release and Packages, without network or store.

What is read here was written by whoever runs an origin, so each reader has limits, reads a text in linear time, and has one
error for all that is wrong with it.
"""
