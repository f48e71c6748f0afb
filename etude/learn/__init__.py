"""Learning: update the model from scored attempts, by policy gradient, imitation or preference."""
