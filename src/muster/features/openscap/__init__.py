"""The Openscap feature: hosts hand in compliance reports and fetch what they are measured by, through the cluster."""
