"""Rewards: score attempts by verifiers (in a child process), majority vote, a judge, form, or combinations of them."""
