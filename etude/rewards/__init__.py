"""Rewards: score attempts by verifiers (in a child process), majority vote, an LLM judge, their format, or a combination of these."""
