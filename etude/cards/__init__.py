"""Model cards: what a saved model was made from and how, its results, and its use."""
