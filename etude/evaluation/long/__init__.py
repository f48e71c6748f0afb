"""Long-context tasks: the answer is hidden in a long text, generated to any length by seed."""
