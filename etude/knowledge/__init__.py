"""Training text for domain adaptation: loads, selects and filters documents, removes near-duplicates and contamination, writes passages,
and mixes sources.
"""
