"""Models: loads, saves and checks them, adds LoRA adapters, and writes folders that other programs can read."""
