"""What studies and benchmarks share: cells, tables, figures, peers. It imports neither."""
