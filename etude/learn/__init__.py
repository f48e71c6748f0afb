"""Learning: from judged attempts, by policy gradient or imitation, to an updated model."""
