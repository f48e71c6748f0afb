"""Settings: read typed dataclasses from YAML and command-line options, print their help, and suggest the nearest name for a wrong one."""
