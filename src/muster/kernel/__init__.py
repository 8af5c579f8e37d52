"""The words all rooms share: errors, names, settings, clock, process, files, log. It imports no other room."""
