"""The Registration feature: hosts fetch the script that registers them, and send what it finds out, through the cluster."""
