"""Recipes: the procedures of the commands, each readable from top to bottom."""
