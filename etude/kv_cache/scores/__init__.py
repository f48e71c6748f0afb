"""Scores for KV cache eviction: how important each cached token is. One way a file, by the paper's name; `score` is what all are."""
