"""The hot loops: one source for two compilers, each with a readable NumPy twin.

`reference` is the truth. `color`, `dynamic`, `mesh` and `composite` are what the engine calls;
they check shapes and run the compiled code (`compiled`, built from cuda/*.cuh by the machine's
C++ compiler) or the twin, whichever `implementation()` chose. `loader` runs the same bodies on an
NVIDIA GPU through pycuda.
"""

from lipstream.kernels.dispatch import Implementation, implementation

__all__ = ["Implementation", "implementation"]
