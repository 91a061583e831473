"""What hypothesis draws for the kernels' tests."""

from hypothesis import settings
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**32 - 1)
EVEN = st.integers(1, 20).map(lambda half: 2 * half)
FEW = settings(max_examples=30, deadline=None, derandomize=True)
MORE = settings(max_examples=60, deadline=None, derandomize=True)
