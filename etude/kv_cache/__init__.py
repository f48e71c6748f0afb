"""Long contexts at a fraction of the memory: which tokens matter, and what is kept of the others."""
