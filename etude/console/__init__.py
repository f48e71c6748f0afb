"""The console: what a person sees of a command, where its outputs go, and experiment trackers."""
