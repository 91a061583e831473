"""The hot loops: each one compiled, with a readable NumPy twin.

A domain is a module here (`color`, `mesh`, `face`, …) that checks its arguments, a C++ file of the
same name, and a twin in `reference`. `dispatch` holds the one choice between the two, `native`
loads the compiled library, and `cuda` runs some of the same bodies on an NVIDIA GPU.
"""
