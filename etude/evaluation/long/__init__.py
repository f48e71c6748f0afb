"""Tasks whose answer lies somewhere in a long text, made to any length by seed."""
