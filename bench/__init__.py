"""Benchmarks: commands that measure what something costs here, never timed tests."""
