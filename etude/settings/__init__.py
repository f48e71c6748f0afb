"""Settings: typed dataclasses from YAML and options, their help, and the nearest name to a wrong one."""
