"""Decoding: a question → the answer that a model gives most reliably, from several of its own."""
