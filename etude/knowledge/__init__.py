"""Training text for domain adaptation: load documents, select and filter them, remove near-duplicates and contamination, write passages,
mix.
"""
