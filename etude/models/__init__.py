"""Models: load, save and check them, add LoRA adapters, and write folders that other programs can read."""
