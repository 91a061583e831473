"""One articulatory phone set for every synthesiser, language and label file.

A phone is described by its visible shape: how far the lips open, how wide they are, how far they
come forward, and its dominance over its neighbours (Cohen and Massaro 1993). IPA from espeak-ng,
ARPAbet from flite, festival and the label files all map here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Phone:
    """The visible shape of a phone.

    Opening is over the speaker's own 95th percentile; width and rounding run from -1 to 1 and
    0 to 1; dominance is relative. Values are ours, set by hand from phonetics textbooks.
    """

    name: str
    opening: float
    width: float
    rounding: float
    opening_dominance: float
    shape_dominance: float
    open_vowel: bool = False


PHONES: Final[tuple[Phone, ...]] = (
    Phone("sil", 0.00, 0.0, 0.0, 0.5, 0.4),
    Phone("p", 0.00, 0.0, 0.0, 4.0, 0.3),
    Phone("b", 0.00, 0.0, 0.0, 4.0, 0.3),
    Phone("m", 0.00, 0.0, 0.0, 4.0, 0.3),
    Phone("f", 0.12, 0.1, 0.1, 2.5, 0.7),
    Phone("v", 0.12, 0.1, 0.1, 2.0, 0.6),
    Phone("th", 0.35, 0.1, 0.0, 1.0, 0.4),
    Phone("dh", 0.32, 0.1, 0.0, 0.7, 0.3),
    Phone("t", 0.28, 0.1, 0.0, 0.7, 0.3),
    Phone("d", 0.28, 0.1, 0.0, 0.7, 0.3),
    Phone("n", 0.30, 0.1, 0.0, 0.6, 0.3),
    Phone("s", 0.22, 0.3, 0.0, 1.2, 0.7),
    Phone("z", 0.22, 0.3, 0.0, 1.2, 0.7),
    Phone("sh", 0.30, -0.4, 0.6, 1.2, 1.3),
    Phone("zh", 0.30, -0.4, 0.6, 1.2, 1.3),
    Phone("ch", 0.28, -0.4, 0.6, 1.2, 1.3),
    Phone("jh", 0.28, -0.4, 0.6, 1.2, 1.3),
    Phone("k", 0.38, 0.0, 0.0, 0.5, 0.2),
    Phone("g", 0.38, 0.0, 0.0, 0.5, 0.2),
    Phone("ng", 0.38, 0.0, 0.0, 0.5, 0.2),
    Phone("h", 0.45, 0.0, 0.0, 0.2, 0.1),
    Phone("l", 0.42, 0.1, 0.0, 0.6, 0.3),
    Phone("r", 0.32, -0.3, 0.5, 0.8, 0.9),
    Phone("rr", 0.35, 0.0, 0.0, 0.6, 0.3),
    Phone("y", 0.30, 0.5, 0.0, 0.8, 0.7),
    Phone("w", 0.12, -0.9, 1.0, 2.0, 2.0),
    Phone("x", 0.42, 0.0, 0.0, 0.5, 0.2),
    Phone("iy", 0.36, 0.9, 0.0, 1.0, 1.2),
    Phone("ih", 0.42, 0.5, 0.0, 0.9, 0.8),
    Phone("ey", 0.52, 0.6, 0.0, 1.0, 1.0),
    Phone("eh", 0.65, 0.4, 0.0, 1.0, 0.8, True),
    Phone("ae", 0.85, 0.4, 0.0, 1.2, 0.8, True),
    Phone("aa", 1.00, 0.0, 0.0, 1.3, 0.8, True),
    Phone("ah", 0.55, 0.0, 0.0, 0.7, 0.4),
    Phone("er", 0.40, -0.3, 0.4, 0.9, 0.8),
    Phone("ao", 0.75, -0.5, 0.5, 1.2, 1.2, True),
    Phone("ow", 0.50, -0.7, 0.7, 1.1, 1.4),
    Phone("uh", 0.35, -0.6, 0.6, 0.9, 1.2),
    Phone("uw", 0.22, -0.9, 0.9, 1.4, 1.6),
    Phone("yy", 0.24, -0.7, 0.9, 1.4, 1.6),
    Phone("oe", 0.45, -0.5, 0.7, 1.1, 1.4),
)
INDEX: Final = {phone.name: index for index, phone in enumerate(PHONES)}
SILENCE: Final = INDEX["sil"]
BILABIALS: Final = tuple(INDEX[name] for name in ("p", "b", "m"))
LABIODENTALS: Final = tuple(INDEX[name] for name in ("f", "v"))
VOICELESS_STOPS: Final = tuple(INDEX[name] for name in ("p", "t", "k", "ch"))
OPEN_VOWELS: Final = tuple(i for i, phone in enumerate(PHONES) if phone.open_vowel)

# One IPA letter, or a digraph that is one phone, to one phone of ours. Letters we cannot see
# apart (place of articulation behind the teeth) share a phone with their nearest neighbour.
_IPA: Final[dict[str, str]] = {
    "tʃ": "ch", "dʒ": "jh", "tɕ": "ch", "dʑ": "jh", "tʂ": "ch", "dʐ": "jh", "ts": "s", "dz": "z",
    "pf": "f", "p": "p", "b": "b", "ɓ": "b", "m": "m", "ɱ": "m", "f": "f", "ɸ": "f", "v": "v",
    "ʋ": "v", "β": "v", "θ": "th", "ð": "dh", "t": "t", "ʈ": "t", "d": "d", "ɖ": "d", "ɗ": "d",
    "ɾ": "d", "n": "n", "ɳ": "n", "ɲ": "n", "s": "s", "z": "z", "ɬ": "s", "ɮ": "z", "ʃ": "sh",
    "ʂ": "sh", "ɕ": "sh", "ʒ": "zh", "ʐ": "zh", "ʑ": "zh", "k": "k", "c": "k", "q": "k",
    "ɡ": "g", "g": "g", "ɟ": "g", "ɠ": "g", "ɢ": "g", "ŋ": "ng", "ɴ": "ng", "h": "h", "ɦ": "h",
    "ħ": "h", "ʔ": "h", "l": "l", "ɫ": "l", "ɭ": "l", "ʎ": "l", "ʟ": "l", "ɺ": "l", "ɹ": "r",
    "ɻ": "r", "r": "rr", "ɽ": "rr", "j": "y", "ʝ": "y", "w": "w", "ʍ": "w", "ɥ": "w",
    "x": "x", "χ": "x", "ɣ": "x", "ʁ": "x", "ç": "h", "ʕ": "x", "ɰ": "x", "ʀ": "x",
    "i": "iy", "ɪ": "ih", "ɨ": "ih", "ᵻ": "ih", "e": "ey", "ɘ": "ey", "ɛ": "eh", "æ": "ae",
    "a": "aa", "ɑ": "aa", "ɐ": "ah", "ʌ": "ah", "ə": "ah", "ɜ": "er", "ɚ": "er", "ɝ": "er",
    "ɞ": "er", "ɒ": "ao", "ɔ": "ao", "o": "ow", "ɤ": "ah", "ʊ": "uh", "u": "uw", "ɯ": "ih",
    "ʉ": "uw", "y": "yy", "ʏ": "yy", "ø": "oe", "œ": "oe", "ɵ": "oe", "ɶ": "oe",
}  # fmt: skip
_VOWELS: Final = frozenset(name for name in INDEX if INDEX[name] >= INDEX["iy"])

_ARPABET: Final[dict[str, tuple[str, ...]]] = {
    "pau": ("sil",), "sil": ("sil",), "sp": ("sil",), "spn": ("sil",), "": ("sil",),
    "h#": ("sil",), "ssil": ("sil",), "brth": ("sil",),
    "aa": ("aa",), "ae": ("ae",), "ah": ("ah",), "ax": ("ah",), "ao": ("ao",),
    "aw": ("aa", "uh"), "ay": ("aa", "ih"), "eh": ("eh",), "er": ("er",), "axr": ("er",),
    "ey": ("ey", "ih"), "ih": ("ih",), "ix": ("ih",), "iy": ("iy",), "ow": ("ow", "uh"),
    "oy": ("ao", "ih"), "uh": ("uh",), "uw": ("uw",), "b": ("b",), "ch": ("ch",), "d": ("d",),
    "dx": ("d",), "dh": ("dh",), "f": ("f",), "g": ("g",), "hh": ("h",), "hv": ("h",),
    "jh": ("jh",), "k": ("k",), "l": ("l",), "el": ("l",), "m": ("m",), "em": ("m",), "n": ("n",),
    "en": ("n",), "ng": ("ng",), "p": ("p",), "r": ("r",), "s": ("s",), "sh": ("sh",),
    "t": ("t",), "th": ("th",), "v": ("v",), "w": ("w",), "y": ("y",), "z": ("z",),
    "zh": ("zh",),
}  # fmt: skip


def from_ipa(symbol: str) -> tuple[int, ...]:
    """Phones of one IPA phoneme, in order; a diphthong gives two. Empty means silence.

    Length, stress, tone and secondary articulation are dropped: lips do not show them.
    """
    names: list[str] = []
    position = 0
    while position < len(symbol):
        pair = symbol[position : position + 2]
        if len(pair) == 2 and pair in _IPA:
            names.append(_IPA[pair])
            position += 2
            continue
        name = _IPA.get(symbol[position])
        # "tɕh" is an aspirated affricate, not an affricate and an h.
        aspiration = name == "h" and names and names[-1] not in _VOWELS
        if name is not None and not aspiration and (not names or names[-1] != name):
            names.append(name)
        position += 1
    return tuple(INDEX[name] for name in names[:3]) or (SILENCE,)


def from_arpabet(symbol: str) -> tuple[int, ...]:
    """Phones of one ARPAbet symbol, stress digit or not; a diphthong gives two.

    Raises: KeyError for a symbol that ARPAbet does not have.
    """
    return tuple(INDEX[name] for name in _ARPABET[symbol.lower().rstrip("012")])
