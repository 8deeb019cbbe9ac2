import re

import numpy as np
import pytest

from moslora.emoji import sprites
from moslora.errors import ConfigError


def test_every_concept_is_drawn_in_every_style():
    for concept in sprites.concepts():
        for style in sprites.STYLES:
            drawing = np.asarray(sprites.sprite(concept.name, style))
            assert drawing.shape[2] == 4
            assert max(drawing.shape[:2]) >= sprites.CELL - 4, (concept.name, style)
            assert (drawing[..., 3] > 127).mean() > 0.2, (concept.name, style)


def test_names_and_code_points_are_unique_and_plain():
    concepts = sprites.concepts()
    assert 250 <= len(concepts) <= 400
    assert len({concept.name for concept in concepts}) == len({concept.code for concept in concepts}) == len(concepts)
    assert all(re.fullmatch(r"[a-z]+([ -][a-z]+)*", concept.name) for concept in concepts)
    assert all(re.fullmatch(r"[a-z]+", concept.class_word) for concept in concepts)
    # A class word that is also a name would say two things in a prompt.
    assert not {concept.class_word for concept in concepts} & {concept.name for concept in concepts}


def test_no_two_drawings_of_a_style_are_alike():
    for style in sprites.STYLES:
        drawn = [sprites.sprite(concept.name, style).tobytes() for concept in sprites.concepts()]
        assert len(set(drawn)) == len(drawn)


def test_subjects_are_concepts_whose_class_has_other_members():
    for name in sprites.SUBJECTS:
        word = sprites.concept(name).class_word
        others = [each for each in sprites.concepts() if each.class_word == word and each.name not in sprites.SUBJECTS]
        assert len(others) >= 5, name


def test_each_sheet_has_a_credit_and_a_licence():
    credit = (sprites.FOLDER.parent / "CREDITS.md").read_text(encoding="utf-8")
    for style, licence in (("noto", "Apache License 2.0"), ("twemoji", "Creative Commons\n  Attribution 4.0")):
        entry = re.search(rf"- `{style}\.webp`:.*?(?=\n-|\n\n)", credit, re.DOTALL)
        assert entry is not None
        assert licence in entry.group()
    assert {path.name for path in sprites.FOLDER.iterdir()} == {"concepts.tsv", "noto.webp", "twemoji.webp"}
    assert sum(path.stat().st_size for path in sprites.FOLDER.iterdir()) < 2_000_000


def test_an_unknown_name_or_style_is_an_error():
    with pytest.raises(ConfigError, match=r"^concept is 'griffin'; .* lists the \d+ known$"):
        sprites.sprite("griffin", "noto")
    with pytest.raises(ConfigError, match=r"^style is 'apple'; choose one of noto, twemoji$"):
        sprites.sprite("dog", "apple")
