"""Recipes: where the parts meet, each procedure readable from top to bottom."""
