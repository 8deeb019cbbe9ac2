"""What is said of the material before anybody judges it."""

from pathlib import Path

from PIL import Image

from moslora.judging.founding import Setup, default_questions, found_study, not_asked
from moslora.judging.material import differing_sizes, read_material
from moslora.judging.noticing import same_answers
from tests.judging.conftest import draw


def pictures(folder: Path, *, side: int = 8, shade: int = 0, pairs: int = 3) -> str:
    folder.mkdir(parents=True)
    for number in range(pairs):
        Image.new("RGB", (side, side), (shade, 50 * number, 0)).save(folder / f"{number}.png")
    return str(folder)


def test_files_that_are_no_part_of_a_study_are_counted_and_the_first_is_named(tmp_path: Path):
    given = [pictures(tmp_path / "a"), pictures(tmp_path / "b", shade=9)]
    photos = Path(pictures(tmp_path / "photos"))
    assert read_material(given, photos=photos).unused == ()
    for path in ("a/x/y/0.png", "a/shot.heic", "a/notes.csv", "a/.hidden/0.png", "photos/dog/0.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    of_answers, of_photos = read_material(given, photos=photos).unused
    assert of_answers.startswith(f"{tmp_path / 'a'}: 2 files are not used, the first shot.heic (read are .jpg, ")
    assert of_photos.startswith(f"{photos}: 1 file is not used, the first dog/0.png (read are .jpg, ")


def test_what_generate_writes_beside_its_pictures_is_not_complained_of(drawn: list[str]):
    assert read_material(drawn).unused == ()


def test_pictures_that_are_larger_throughout_are_told_of(tmp_path: Path):
    given = [pictures(tmp_path / "alpha", side=384), pictures(tmp_path / "beta", side=512)]
    assert differing_sizes(read_material(given)) == [
        "beta's pictures are larger (512 x 512, alpha's 384 x 384); all are shown at 384 x 384, and sharpness may tell"
        " them apart"
    ]
    Image.new("RGB", (384, 384)).save(tmp_path / "beta" / "1.png")
    assert differing_sizes(read_material(given)) == []


def test_pairs_of_the_same_answer_are_counted(tmp_path: Path):
    for name, texts in (("a", "one two three four"), ("b", "one zwei three four"), ("c", "eins zwei drei four")):
        (tmp_path / name).mkdir()
        for number, text in enumerate(texts.split()):
            (tmp_path / name / f"{number}.txt").write_text(text)
    for methods, line in (("ab", "3 pairs have"), ("ac", "1 pair has"), ("abc", "6 pairs have")):
        folder = tmp_path / f"study-{methods}"
        found_study(folder, read_material([str(tmp_path / name) for name in methods]), setup=Setup(judges=("ann",)))
        assert same_answers(folder) == [f"{line} the same answer from both"]


def test_why_a_question_is_not_asked(tmp_path: Path, drawn: list[str]):
    photos = Path(pictures(tmp_path / "photos"))
    names = [item.name for item in read_material(drawn).items]
    rows = [f"{name},{'' if name == names[3] else 'a cup'}" for name in names]
    (tmp_path / "p.csv").write_text("\n".join(["name,prompt", *rows]) + "\n")
    found = read_material(drawn, photos=photos, prompts=tmp_path / "p.csv")
    assert [question.name for question in default_questions(found)] == ["subject similarity"]
    assert not_asked(found) == [
        f"prompt consistency is not asked: 1 of 10 names has no prompt, first '{names[3]}' (--prompts)"
    ]
    assert not_asked(read_material(drawn)) == ["subject similarity is not asked: there are no photos (--photos)"]
    assert not_asked(read_material([str(draw(tmp_path / name, pairs=2)) for name in "xy"], photos=photos)) == []
