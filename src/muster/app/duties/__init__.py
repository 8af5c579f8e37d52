"""What a member does beside answering calls: one file a duty, each with its cadence, its state and what it found."""
