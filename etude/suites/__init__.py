"""Suites: what is asked of a model, each as `etude evaluate MODEL --suite NAME` and in training."""
