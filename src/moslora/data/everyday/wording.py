"""Articles, and the words that decide in which split an item may appear."""

import re

_GLUE = """
    a an the of in on at to for from into onto up down out off over away back and or with by before after between is are
    do does did be can you your it its them him her one some pair piece which what who where this these that how put get
    take go give come have has make let see use wait start turn fill pick hold open drop collect buy ask leave climb
    carry bring throw blow step pull spread cut hear show eat watch
"""
# Words too common to tell one item from another; every other word belongs to one split only.
GLUE = frozenset(_GLUE.split())

_VOWEL = re.compile(r"[aeiou]|hour|honest|heir|X-", re.IGNORECASE)
_CONSONANT = re.compile(r"uni|uk|us[aeiu]|eu|one|USB", re.IGNORECASE)
_WORD = re.compile(r"[a-z]+")


def noun_phrase(item: str) -> str:
    """A table item as it stands in a question: "an owl" for `owl`, "snow" for `~snow`, "the sun" for `the sun`."""
    if item.startswith("~"):
        return item[1:]
    if item.startswith(("a ", "an ", "the ")):
        return item
    is_vowel = _VOWEL.match(item) and not _CONSONANT.match(item)
    return f"{'an' if is_vowel else 'a'} {item}"


def key_words(text: str) -> frozenset[str]:
    """The words of a text in lower case and the singular, without `GLUE`."""
    words = _WORD.findall(text.lower().replace("'s ", " "))
    return frozenset(_singular(word) for word in words if word not in GLUE)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("shes", "ches", "xes", "sses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")):
        return word[:-1]
    return word
