"""Training: the run folder, stages, checkpoints and the ledger, whatever is trained."""
