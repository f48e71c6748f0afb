"""How important each token is that a layer holds: one way a file."""
