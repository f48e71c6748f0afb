"""The device: which one, its precision, threads, memory and disk."""
