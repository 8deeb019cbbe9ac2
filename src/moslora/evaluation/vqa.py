"""Open answers made alike before they are compared, as LLaVA's evaluation of TextVQA does (its EvalAIAnswerProcessor).

Lower case; no commas and question marks; `'s` is a word of its own; punctuation becomes a space, or nothing where it
touches one; a full stop goes unless a digit follows; number words to ten become digits (and `none` is 0); articles go;
contractions get their apostrophe back. VLMEvalKit's normalisation keeps commas and `'s` as they are: scores differ.
"""

import re
from collections.abc import Sequence

_PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_ARTICLES = ("a", "an", "the")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""


def _lacking_one_apostrophe(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, sign in enumerate(word) if sign == "'"]


_WHOLE = {lacking: word for word in _CONTRACTIONS.split() for lacking in _lacking_one_apostrophe(word)}
_WHOLE["somebody'd"] = "somebodyd"  # the other way round, as the published table has it


def normalised(text: str) -> str:
    """An answer as it is compared."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.strip().replace("\n", " ").replace("\t", " ")
    apart = text
    for sign in _PUNCTUATION:
        touches = f"{sign} " in text or f" {sign}" in text
        apart = apart.replace(sign, "" if touches else " ")
    words = (_DIGITS.get(word, word) for word in _FULL_STOP.sub("", apart).split())
    return " ".join(_WHOLE.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(text: str, answers: Sequence[str]) -> float:
    """How far people agree with an answer, 0 to 1: over each of their answers, a third of the others that are equal.

    Three equal others are full agreement. Answers and text are compared as `normalised`.
    """
    given = normalised(text)
    equal = [normalised(answer) == given for answer in answers]
    return sum(min(1.0, (sum(equal) - own) / 3) for own in equal) / len(equal) if equal else 0.0
