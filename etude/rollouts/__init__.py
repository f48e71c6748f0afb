"""Rollouts: in which order tasks are practised, how a task becomes a prompt, and which attempts are made at it."""
