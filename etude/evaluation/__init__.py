"""Evaluation: what a model can do, with intervals and trivial baselines beside it, and the page that shows a run."""
