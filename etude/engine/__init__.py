"""Engines that draw completions of a prompt, and what they hand out."""
