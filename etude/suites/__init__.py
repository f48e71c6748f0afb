"""Suites: benchmarks of any model, each run as `etude evaluate MODEL --suite NAME`; the domain suite also runs during adaptation."""
