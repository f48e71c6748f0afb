"""Scores for KV cache eviction: the importance of each cached token. One score in each file, by the paper's name; `score`: base class."""
