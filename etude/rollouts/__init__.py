"""Rollouts: the order of tasks, the rendering of prompts, and the sampling of attempts."""
