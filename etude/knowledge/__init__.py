"""Knowledge: documents → training text: selection, quality, near-duplicates, leaks; passages and stages."""
