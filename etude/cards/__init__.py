"""Model cards: a saved model's base model, training, results and use."""
