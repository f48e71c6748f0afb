"""Models: load and save them, check their files, add adapters, and make them readable by other programs."""
