"""Console: reports a command's progress and results, writes its output files, and logs to experiment trackers."""
