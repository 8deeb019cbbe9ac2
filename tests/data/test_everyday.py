"""The built-in questions: what they look like, that the options give nothing away, and that the test is unseen."""

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from math import log
from pathlib import Path

import pytest

import moslora.data.everyday as package
from moslora.data.everyday import KINDS, everyday, without_question
from moslora.data.everyday.tables import TABLES
from moslora.data.everyday.tables.shapes import Facts, Pairs, Sizes
from moslora.data.everyday.wording import GLUE, key_words, noun_phrase
from moslora.errors import DataError

SPLITS = ("train", "test")
LABELS = ("answer1", "answer2", "answer3", "answer4")
# A guess is right in 25 %; the rules below may be off by five points.
LOWEST, HIGHEST = 0.20, 0.30

Sample = dict[str, str]
Rule = Callable[[list[str]], int]


def options_of(sample: Sample) -> list[str]:
    return re.split(r" answer\d(?:, |$)", sample["instruction"].rpartition("\n")[2])[:-1]


def question_of(sample: Sample) -> str:
    return sample["instruction"].partition("\n")[0]


def right_option(sample: Sample) -> str:
    return options_of(sample)[LABELS.index(sample["answer"])]


def accuracy(rule: Rule, samples: list[Sample]) -> float:
    return sum(LABELS[rule(options_of(sample))] == sample["answer"] for sample in samples) / len(samples)


@pytest.fixture(scope="module", params=SPLITS)
def samples(request: pytest.FixtureRequest) -> list[Sample]:
    return everyday(request.param)


# Size and form


def test_there_are_enough_questions_and_kinds() -> None:
    assert len(everyday("train")) == 2400
    assert len(everyday("test")) == 384
    assert len(set(KINDS)) == len(KINDS) == 12


def test_the_kinds_are_equally_frequent_and_mixed(samples: list[Sample]) -> None:
    counts = Counter(sample["kind"] for sample in samples)
    assert set(counts) == set(KINDS)
    assert len(set(counts.values())) == 1
    assert len({sample["kind"] for sample in samples[:100]}) == len(KINDS)


def test_a_group_has_the_same_four_options_each_right_once(samples: list[Sample]) -> None:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample["group"]].append(sample)
    for group in groups.values():
        assert len({frozenset(options_of(sample)) for sample in group}) == 1
        assert sorted(sample["answer"] for sample in group) == list(LABELS)
        assert len({right_option(sample) for sample in group}) == 4


def test_each_sample_has_a_question_four_options_and_one_of_them_as_the_answer(samples: list[Sample]) -> None:
    for sample in samples:
        assert list(sample) == ["instruction", "input", "output", "answer", "kind", "group"]
        assert sample["input"] == ""
        assert sample["answer"] in LABELS
        assert sample["output"] == f"the correct answer is {sample['answer']}"
        assert re.fullmatch(r"[^\n]+[?.]\n.+ answer1, .+ answer2, .+ answer3, .+ answer4", sample["instruction"])
        assert len(set(options_of(sample))) == 4


def test_prompts_are_short(samples: list[Sample]) -> None:
    lengths = [len(sample["instruction"].split()) for sample in samples]
    assert max(lengths) <= 50
    assert sum(lengths) / len(lengths) <= 22


def test_no_question_is_asked_twice(samples: list[Sample]) -> None:
    asked = Counter((question_of(sample), frozenset(options_of(sample))) for sample in samples)
    assert max(asked.values()) == 1


def test_articles_and_spaces_are_right(samples: list[Sample]) -> None:
    for sample in samples:
        text = sample["instruction"]
        assert "  " not in text
        assert "~" not in text
        assert "{" not in text
        assert not re.search(r"\b[Aa] (?!uni|uk|us)[aeiou]", text), text
        assert not re.search(r"\b[Aa]n (?!hour|X-ray)[^aeiouAEIOU]", text), text
        assert not re.search(r"\b(an?|the) (an?|the) ", text), text


@pytest.mark.parametrize(
    ("item", "phrase"),
    [
        ("sparrow", "a sparrow"),
        ("owl", "an owl"),
        ("hour hand", "an hour hand"),
        ("unicycle", "a unicycle"),
        ("umbrella", "an umbrella"),
        ("X-ray machine", "an X-ray machine"),
        ("~snow", "snow"),
        ("the sun", "the sun"),
        ("a pair of jeans", "a pair of jeans"),
    ],
)
def test_items_get_their_article(item: str, phrase: str) -> None:
    assert noun_phrase(item) == phrase


# The tables


def test_no_item_is_under_two_answers_of_a_kind() -> None:
    for table in TABLES:
        counts = Counter(" ".join(item.split()) for item in table_items(table))
        assert [item for item, count in counts.items() if count > 1] == [], table.kind


def test_clashes_name_answers_of_their_table() -> None:
    for table in TABLES:
        if isinstance(table, Facts):
            for answer, others in table.clashes.items():
                assert {answer, *others.split(", ")} <= set(table.items), table.kind


def table_items(table: Facts | Pairs | Sizes) -> Iterator[str]:
    if isinstance(table, Facts):
        texts = [text for items in table.items.values() for text in items.split(",")]
    elif isinstance(table, Pairs):
        texts = [text for pairs in table.families.values() for text in re.split("[,>]", pairs)]
    else:
        texts = [text for tier in table.tiers for text in tier.split(",")]
    yield from texts


# The same questions everywhere


def test_the_questions_are_the_same_whatever_the_hash_seed() -> None:
    code = (
        "import hashlib, sys; from moslora.data.everyday import everyday; "
        "digest = hashlib.sha256(repr((everyday('train'), everyday('test'))).encode()).hexdigest(); "
        "print(digest, 'torch' in sys.modules)"
    )
    source = str(Path(package.__file__).parents[3])
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": source},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(printed) == 1
    assert printed.pop().split()[1] == "False", "building the questions loaded torch"


def test_the_package_imports_the_standard_library_and_itself_only() -> None:
    for path in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                allowed = name.split(".")[0] in sys.stdlib_module_names
                assert allowed or name.startswith(("moslora.data.everyday", "moslora.errors")), f"{path.name}: {name}"


def test_callers_may_change_their_samples() -> None:
    everyday("test")[0]["instruction"] = "spoilt"
    assert everyday("test")[0]["instruction"] != "spoilt"


def test_an_unknown_split_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match=re.escape("has no split 'tset'; did you mean 'test'? (allowed: train, test)")):
        everyday("tset")


# The options give nothing away


def test_each_position_is_right_equally_often_in_every_kind(samples: list[Sample]) -> None:
    counts = Counter((sample["kind"], sample["answer"]) for sample in samples)
    assert len(counts) == len(KINDS) * len(LABELS)
    assert len(set(counts.values())) == 1


def test_each_set_of_options_has_each_option_right_equally_often(samples: list[Sample]) -> None:
    right: dict[tuple[str, frozenset[str]], Counter[str]] = defaultdict(Counter)
    for sample in samples:
        right[sample["kind"], frozenset(options_of(sample))][right_option(sample)] += 1
    for counts in right.values():
        assert len(counts) == 4
        assert len(set(counts.values())) == 1


def test_without_question_keeps_the_options_only() -> None:
    sample = everyday("test")[0]
    bare = without_question(sample)
    assert bare["instruction"] == sample["instruction"].partition("\n")[2]
    assert options_of(bare) == options_of(sample)
    assert {**bare, "instruction": ""} == {**sample, "instruction": ""}


def longest(options: list[str]) -> int:
    return max(range(4), key=lambda index: len(options[index]))


def shortest(options: list[str]) -> int:
    return min(range(4), key=lambda index: len(options[index]))


@pytest.mark.parametrize("rule", [longest, shortest, *(lambda _, at=at: at for at in range(4))])
def test_form_and_position_are_no_shortcut(rule: Rule) -> None:
    assert LOWEST <= accuracy(rule, everyday("test")) <= HIGHEST


def whole(options: list[str], index: int) -> list[str]:
    return [options[index]]


def words(options: list[str], index: int) -> list[str]:
    return options[index].split()


def placed(options: list[str], index: int) -> list[str]:
    return [f"{index} {options[index]}", f"{index} after {options[index - 1]}"]


@pytest.mark.parametrize("features", [whole, words, placed])
def test_a_model_of_the_options_alone_is_at_chance(features: Callable[[list[str], int], list[str]]) -> None:
    rule = options_only_model(everyday("train"), features)
    assert LOWEST <= accuracy(rule, everyday("test")) <= HIGHEST


def options_only_model(samples: list[Sample], features: Callable[[list[str], int], list[str]]) -> Rule:
    """Naive Bayes: picks the option whose features were most often those of a right option, with add-one smoothing."""
    right: Counter[str] = Counter()
    offered: Counter[str] = Counter()
    for sample in samples:
        options = options_of(sample)
        for index in range(4):
            offered.update(features(options, index))
        right.update(features(options, LABELS.index(sample["answer"])))

    def score(options: list[str], index: int) -> float:
        return sum(log((right[name] + 1) / (offered[name] + 4)) for name in features(options, index))

    return lambda options: max(range(4), key=lambda index: score(options, index))


# The test is unseen


def asked_item(sample: Sample) -> str | None:
    """What a question is about, found by matching the phrasings of its kind; None for "Which is the biggest?"."""
    table = next(table for table in TABLES if table.kind == sample["kind"])
    match table:
        case Facts():
            phrasings = table.questions
        case Pairs():
            phrasings = (*table.forward, *table.backward)
        case Sizes():
            if question_of(sample) in (*table.smallest, *table.biggest):
                return None
            phrasings = table.alike
    patterns = [re.escape(phrasing).replace(r"\{\}", "(.+)") for phrasing in phrasings]
    found = [match[1] for pattern in patterns if (match := re.fullmatch(pattern, question_of(sample)))]
    return min(found, key=len)


def items_of(sample: Sample) -> list[str]:
    """The items that must be unseen: the one asked about, and the options where they are items too."""
    asked = asked_item(sample)
    has_item_options = sample["kind"] in ("opposite", "before-after", "bigger-than")
    return ([asked] if asked else []) + (options_of(sample) if has_item_options else [])


def test_no_key_word_of_a_test_item_is_in_any_training_question_or_option() -> None:
    seen = {word for sample in everyday("train") for word in re.findall("[a-z]+", sample["instruction"].lower())}
    for sample in everyday("test"):
        for item in items_of(sample):
            key = {word for word in re.findall("[a-z]+", item.lower().replace("'s ", " ")) if word not in GLUE}
            assert key, f"'{item}' has no word of its own"
            assert not {form for word in key for form in (word, f"{word}s", word.removesuffix("s"))} & seen, item


def test_the_splits_share_the_answers_of_categories_and_phrasings() -> None:
    train, test = everyday("train"), everyday("test")
    for kind in set(KINDS) - {"opposite", "before-after", "bigger-than"}:
        offered = {option for sample in train if sample["kind"] == kind for option in options_of(sample)}
        assert {option for sample in test if sample["kind"] == kind for option in options_of(sample)} <= offered


@pytest.mark.parametrize(("split", "least"), [("train", 1200), ("test", 280)])
def test_items_are_many(split: str, least: int) -> None:
    assert len({item for sample in everyday(split) for item in items_of(sample)}) >= least


def test_key_words_are_singular_and_lower_case() -> None:
    assert key_words("Bring in the cows, berries and brushes") == {"cow", "berry", "brush"}
