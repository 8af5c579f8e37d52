"""What the world looks like from outside: what members are made of, what they answer, and where they differ."""
