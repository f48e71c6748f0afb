"""Export: a run packed for other people, without weights, machine paths and secrets; a model written for other programs."""
