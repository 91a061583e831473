"""A session id of 32 bits as 255 signs that survive noise.

The id and its CRC-15 are the 47 message bits of the primitive BCH code (255, 47), whose words
differ in at least 85 places. It is decoded from real-valued readings by ordered statistics: the 47
most reliable independent readings are taken as they are, then with up to three of them flipped, and
the word nearest to the readings wins.

Source: Lin and Costello, Error Control Coding (2004), sections 6.1 (BCH codes) and 10.8 (ordered
statistics).
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import UsageError
from lipstream.engine.types import F32, U8

LENGTH: Final = 255
ID_BITS: Final = 32
CHECK_BITS: Final = 15
_MESSAGE: Final = ID_BITS + CHECK_BITS
_FIELD: Final = 0x11D  # x^8 + x^4 + x^3 + x^2 + 1, the primitive polynomial of GF(256)
_DISTANCE: Final = 85  # that the code is designed for
_CRC: Final = 0x4599  # CRC-15/CAN, with all ones at the start: an id of 0 has a check too
_FLIPPED: Final = 3


def encode(session: int) -> U8:
    """The code word of an id, u8 [255] of 0 and 1.

    Raises: UsageError for what is no number of 32 bits.
    """
    if not 0 <= session < 1 << ID_BITS:
        raise UsageError(f"session id {session}; expected 0 to {(1 << ID_BITS) - 1}")
    return _bits(session << CHECK_BITS | _check(session), _MESSAGE) @ _generator() % 2


def decode(readings: F32) -> int | None:
    """The id of the word nearest to f32 [255], above 0 for a 1; None where its check fails.

    The check of a word that is none passes once in 2^15.
    """
    order, generator = _reliable_basis(readings)
    signed = readings[order].astype(np.float32)
    hard = (signed[:_MESSAGE] > 0).astype(np.uint8)
    first = hard @ generator % 2
    best, best_score = first, -np.inf
    for flipped in range(_FLIPPED + 1):
        which = _choices(flipped)
        words = np.broadcast_to(first, (len(which), LENGTH)).copy()
        for column in which.T:
            words ^= generator[column]
        scores = words.astype(np.float32) @ signed
        at = int(scores.argmax())
        if scores[at] > best_score:
            best, best_score = words[at], float(scores[at])
    word = np.empty(LENGTH, np.uint8)
    word[order] = best
    message = int("".join(map(str, word[:_MESSAGE])), 2)
    session = message >> CHECK_BITS
    return session if message & (1 << CHECK_BITS) - 1 == _check(session) else None


def _check(session: int) -> int:
    register = (1 << CHECK_BITS) - 1
    for bit in _bits(session, ID_BITS):
        top = register >> CHECK_BITS - 1 ^ int(bit)
        register = (register << 1 & (1 << CHECK_BITS) - 1) ^ (_CRC if top else 0)
    return register


def _bits(value: int, count: int) -> U8:
    """The highest bit first."""
    return np.array([value >> place & 1 for place in reversed(range(count))], np.uint8)


@cache
def _choices(count: int) -> NDArray[np.int64]:
    """Every choice of so many of the message's bits, i64 [choices, count]."""
    chosen = list(combinations(range(_MESSAGE), count))
    return np.array(chosen, np.int64).reshape(len(chosen), count)


def _reliable_basis(readings: F32) -> tuple[NDArray[np.int64], U8]:
    """An order of the places, and the generator matrix in it: its first columns are the identity.

    The first `_MESSAGE` places are the most reliable ones that do not depend on each other.
    """
    by_reliability = np.argsort(-np.abs(readings), kind="stable")
    matrix = _generator()[:, by_reliability].copy()
    basis: list[int] = []
    for column in range(LENGTH):
        row = len(basis)
        if row == _MESSAGE:
            break
        pivots = np.flatnonzero(matrix[row:, column])
        if not pivots.size:
            continue
        matrix[[row, row + pivots[0]]] = matrix[[row + pivots[0], row]]
        others = matrix[:, column].astype(bool)
        others[row] = False
        matrix[others] ^= matrix[row]
        basis.append(column)
    rest = np.setdiff1d(np.arange(LENGTH), basis)
    places = np.concatenate([np.array(basis), rest])
    return by_reliability[places], matrix[:, places]


@cache
def _generator() -> U8:
    """The systematic generator matrix, u8 [47, 255]: the message stands first."""
    polynomial = _generator_polynomial()
    parity = LENGTH - _MESSAGE
    rows = np.zeros((_MESSAGE, LENGTH), np.uint8)
    for row in range(_MESSAGE):
        shifted = 1 << LENGTH - 1 - row
        remainder = shifted
        for degree in range(LENGTH - 1 - row, parity - 1, -1):
            if remainder >> degree & 1:
                remainder ^= polynomial << degree - parity
        rows[row] = _bits(shifted | remainder, LENGTH)
    return rows


def _generator_polynomial() -> int:
    """The product of the minimal polynomials of a, a^2, ..., a^(distance - 1); bit k is for x^k."""
    power = [1]
    for _ in range(LENGTH - 1):
        doubled = power[-1] << 1
        power.append(doubled ^ _FIELD if doubled >> 8 else doubled)
    log = {value: exponent for exponent, value in enumerate(power)}
    roots = {root * 2**k % LENGTH for root in range(1, _DISTANCE) for k in range(8)}
    polynomial = [1]  # coefficients in GF(256), of x^0 first
    for root in sorted(roots):
        scaled = [power[(log[c] + root) % LENGTH] if c else 0 for c in polynomial]
        polynomial = [a ^ b for a, b in zip([0, *polynomial], [*scaled, 0], strict=True)]
    assert set(polynomial) <= {0, 1} and len(polynomial) == LENGTH - _MESSAGE + 1
    return sum(bit << k for k, bit in enumerate(polynomial))
