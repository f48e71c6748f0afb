"""Writers of passages (`etude.knowledge.passages`): by rules, by a chat model, and from the model's own verified attempts."""
