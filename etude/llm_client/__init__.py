"""Models that are asked by chat messages, wherever they run."""
