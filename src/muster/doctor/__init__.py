"""The doctor: runs checks side by side and says finding, cause and remedy. It changes nothing."""
