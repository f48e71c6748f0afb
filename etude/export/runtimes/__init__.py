"""Runtimes of exported models: each file has `open_runtime(place, ...)`, whose result answers prompts greedily, as token ids."""
