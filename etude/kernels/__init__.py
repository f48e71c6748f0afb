"""What etude computes by compiled code of its own on a CPU: vectors and blocks in headers, a stage's kernels in a file each."""
