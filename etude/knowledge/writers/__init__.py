"""Writers of passages (`etude.knowledge.passages`): by rule, a model that is asked by chat, and a model's own verified attempts."""
