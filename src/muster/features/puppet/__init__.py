"""The Puppet feature: Foreman imports environments and classes from puppetserver."""
