"""Random text for synthesis: commands, numbers, letters, questions, sentences, nonsense words.

The recogniser must learn sounds and not phrases, so half of the words stand in an order that nobody
would use. A seed determines the text.
"""

from __future__ import annotations

from typing import Final

import numpy as np


def _words(text: str) -> list[str]:
    return text.split()


_NOUNS: Final = _words(
    """man woman boy girl baby mother father brother sister friend people family child teacher
doctor farmer captain president neighbour mountain river ocean beach valley village city bridge road
house window door kitchen table chair bottle paper book letter photo picture movie music song
voice mouth finger thumb shoulder elbow knee heart blood money price coffee tea milk bread
butter cheese apple pepper mushroom fish beef chicken vegetable flower forest wolf bear fox
puppy bird butterfly spider elephant weather storm thunder rain snow wind fire smoke water ship
boat plane train bus bicycle engine wheel machine computer phone battery number problem question
answer reason story history future moment minute week month year summer winter spring autumn
morning evening office meeting budget business company government economy health school college
student exam lesson language word sentence paragraph chapter subject theory measure pleasure
treasure vision garage beige rouge thing path breath truth youth cloth thief throat thread thumb
job judge bridge edge village church match watch bench beach cheese shoe shop shirt fashion
ocean wish brush"""
)
_VERBS: Final = _words(
    """see hear make take give find keep hold bring buy sell build break move push pull open close
watch follow leave meet help teach learn read write speak tell ask answer believe remember
forget love hate need want like use try change fix paint wash cook eat drink carry throw catch
climb choose measure discover improve imagine visit observe provide prove remove share shape
show shoot should touch judge join enjoy avoid destroy employ beg bite blow pay play put pour
repeat report support explore"""
)
_PAST: Final = _words(
    """saw heard made took gave found kept held brought bought sold built broke moved pushed pulled
opened closed watched followed left met helped taught learned wrote spoke told asked believed
remembered forgot loved needed wanted used tried changed painted washed cooked carried threw
caught chose measured discovered imagined visited proved removed shared showed touched joined
enjoyed avoided destroyed bit blew paid played put poured"""
)
_ADJECTIVES: Final = _words(
    """big small old new young good bad early late happy sad angry quiet loud fast slow warm cool
hot cold wet dry deep high low long short strong weak rich poor clean dirty bright dark heavy light
soft hard smooth rough sharp sweet sour bitter fresh empty full simple possible famous serious
dangerous beautiful wonderful terrible purple yellow blue brown green white black huge usual
casual bashful thoughtful public common perfect foolish"""
)
_ADVERBS: Final = _words(
    """quickly slowly quietly often never always maybe probably suddenly finally really above below
before behind between together tomorrow yesterday today tonight again soon outside everywhere
somewhere"""
)
_PLACES: Final = _words(
    """Boston Paris London Berlin Moscow Vienna Mumbai Beijing Tokyo Havana Yemen Florida Memphis
Baltimore Philadelphia Oxford Bombay Peru Vermont"""
)
_NAMES: Final = _words(
    """Bob Mary Peter Emma Paul Sophie Frank Phoebe Tom Julia George Charlotte Victor Wendy Hugh
Barbara Maurice Olivia Boris Ruth Matthew Joyce"""
)
_GRID: Final = (
    ("bin", "lay", "place", "set"), ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"), tuple("ABCDEFGHIJKLMNOPQRSTUVXYZ"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)  # fmt: skip
_EVERYDAY: Final = """Could I get a large iced coffee with oat milk, please?
I'd like two shots of espresso and a blueberry muffin.
What time does the next bus leave for the airport?
We all know the past few years have been difficult for many families.
Thank you very much for having me here this evening.
Please remember to bring your umbrella, it might rain.
How much wood would a woodchuck chuck?
She sells sea shells by the sea shore.
Peter Piper picked a peck of pickled peppers.
My mother baked a beautiful apple pie for my birthday.
Good morning, everybody. Welcome back to the programme.
I don't think that's what he meant, but let me check.
Why did you move the piano into the bathroom?
The boy was there when the sun rose.
A rod is used to catch pink salmon.
The source of the huge river is the clear spring.
Help the woman get back to her feet.
Smoky fires lack flame and heat.
The soft cushion broke the man's fall.
Both brothers wear the same size.
Five wolves have found the old mill above the village.
We will go to the movies on Wednesday if the weather improves.
Hello, how are you? I'm fine, thanks, and you?
Yes. No. Maybe. Of course. Absolutely not!
Wow, that is amazing. Oh, I see. Uh huh. Okay.
Let's fix the problem before the meeting begins.
The company reported a profit of fourteen million dollars.
Turn left at the bridge, then follow the river for about five miles.
May the force be with you. Mamma mia! Baby, maybe Bob will pay.
Your call may be recorded for quality and training purposes.
The quick brown fox jumps over the lazy dog.
Put the butter, the flour and the sugar into a big bowl.""".splitlines()
_ONSETS: Final = ("", "p", "b", "m", "f", "v", "t", "d", "n", "s", "z", "k", "g", "l", "r", "h",
                  "j", "w", "sh", "ch", "th", "pl", "br", "st", "tr", "sp", "fl", "pr", "bl", "kr",
                  "sk", "sm", "gr")  # fmt: skip
_NUCLEI: Final = ("a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ai", "au", "oi", "ou", "ea",
                  "ee", "oo")  # fmt: skip
_CODAS: Final = ("", "", "", "", "n", "m", "p", "b", "s", "t", "r", "l", "k", "f", "d", "ng", "st",
                 "v", "sh", "g")  # fmt: skip


def _word(rng: np.random.Generator) -> str:
    """A pronounceable word that exists in no language."""
    syllables = int(rng.integers(1, 4))
    return "".join(
        str(rng.choice(_ONSETS)) + str(rng.choice(_NUCLEI)) + str(rng.choice(_CODAS))
        for _ in range(syllables)
    )


def nonsense(rng: np.random.Generator) -> str:
    """A sentence of nonsense words, for any language written in Latin letters."""
    return " ".join(_word(rng) for _ in range(int(rng.integers(3, 9)))) + str(
        rng.choice([".", ".", "?", "!"])
    )


def syllables(rng: np.random.Generator) -> str:
    """Words of plain syllables, of consonant, vowel and at most one sonorant, for any language."""
    words = []
    for _ in range(int(rng.integers(3, 8))):
        word = ""
        for _ in range(int(rng.integers(1, 5))):
            word += str(rng.choice(list("ppbbmmfvtdnszkgl"))) + str(rng.choice(list("aeiou")))
        words.append(word + str(rng.choice(["", "", "", "n", "l", "s"])))
    return " ".join(words) + "."


def numbers(rng: np.random.Generator) -> str:
    """Digits and numbers, which every language of a synthesiser can read."""
    kinds = rng.integers(0, 3, size=int(rng.integers(1, 4)))
    parts = []
    for kind in kinds:
        if kind == 0:
            parts.append(" ".join(str(d) for d in rng.integers(0, 10, size=5)))
        elif kind == 1:
            parts.append(str(int(rng.integers(10, 10_000))))
        else:
            parts.append(f"{int(rng.integers(1, 99))}, {int(rng.integers(100, 999_999))}")
    return ", ".join(parts) + "."


def english(rng: np.random.Generator) -> str:
    """One English utterance of a random kind."""

    def pick(words: list[str] | tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    kind = int(rng.integers(0, 11))
    if kind == 0:
        return " ".join(pick(slot) for slot in _GRID) + "."
    if kind == 1:
        return numbers(rng)
    if kind == 2:
        return ", ".join(pick(_GRID[3]) for _ in range(int(rng.integers(3, 8)))) + "."
    if kind in (3, 4):
        return pick(_EVERYDAY)
    if kind == 5:
        return nonsense(rng)
    if kind == 6:
        bag = _NOUNS + _VERBS + _PAST + _ADJECTIVES + _ADVERBS
        return " ".join(pick(bag) for _ in range(int(rng.integers(4, 10)))) + "."
    if kind == 7:
        return f"Did {pick(_NAMES)} {pick(_VERBS)} the {pick(_ADJECTIVES)} {pick(_NOUNS)}?"
    if kind == 8:
        return (
            f"{pick(_NAMES)} and {pick(_NAMES)} {pick(_PAST)} {pick(_ADVERBS)} in "
            f"{pick(_PLACES)}, but the {pick(_NOUNS)} was {pick(_ADJECTIVES)}."
        )
    if kind == 9:
        return (
            f"Why would you {pick(_VERBS)} my {pick(_NOUNS)} "
            f"if the {pick(_NOUNS)} {pick(_PAST)} a {pick(_ADJECTIVES)} {pick(_NOUNS)}?"
        )
    return (
        f"The {pick(_ADJECTIVES)} {pick(_NOUNS)} {pick(_PAST)} the {pick(_NOUNS)} of the "
        f"{pick(_NOUNS)} {pick(_ADVERBS)}, and we {pick(_VERBS)} it."
    )
