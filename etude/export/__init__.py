"""Export: a run for somebody else, without weights, machine paths and secrets."""
