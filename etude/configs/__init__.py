"""The configurations that come with etude, one YAML file each."""
