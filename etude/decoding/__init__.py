"""Decoding: methods that answer a question reliably by combining several of the model's own answers, or several of its layers."""
