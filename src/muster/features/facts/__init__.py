"""The Facts feature: what Facter finds out about the host of a member."""
