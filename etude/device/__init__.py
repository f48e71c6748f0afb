"""The device: which one, how precise, how many threads, and how much memory and disk."""
