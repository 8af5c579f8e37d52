"""What follows from the cluster file for other programs: one file an output, each a pure function of the model."""
