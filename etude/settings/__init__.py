"""Settings: reads typed dataclasses from YAML and command-line options, prints help, and suggests the nearest name for a wrong one."""
