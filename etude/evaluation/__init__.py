"""Evaluation: measures models on suites, with confidence intervals and trivial baselines, and writes a run's report page."""
