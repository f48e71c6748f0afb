"""Export: packs a run for other people, without weights, machine paths and secrets."""
