"""The NumPy twin of every kernel: what the compiled code must compute, written to be read.

Twins check nothing, the wrappers do. They also run where no compiler was at hand. docs/kernels.md
says which compiled kernels have the same bits as their twin, and how far the others may differ.
"""
