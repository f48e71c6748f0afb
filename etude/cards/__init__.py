"""Model cards: what a saved model is made from, how, how good it is, and how it is used."""
