"""Evaluation: measure models on suites, with confidence intervals and trivial baselines, and write a run's report page."""
