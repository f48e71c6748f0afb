"""Learning: from judged attempts, by credit or imitation, to an updated model."""
