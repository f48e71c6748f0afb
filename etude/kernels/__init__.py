"""Etude's own compiled code for CPUs: headers for vectors and blocks, and a file of kernels for each stage."""
