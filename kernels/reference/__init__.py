"""The NumPy twins: the truth that compiled kernels are held to."""
