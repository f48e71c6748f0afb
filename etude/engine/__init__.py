"""Engines, which sample completions of prompts with shared prefixes and a KV cache."""
