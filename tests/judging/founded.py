"""Studies on disk that were judged, as a server would keep them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from moslora.judging.founding import Setup, found_study
from moslora.judging.material import read_material
from moslora.judging.study import Choice, Page, Study
from moslora.painting.png import write_picture
from moslora.painting.requests import Request

Answering = Callable[[str, Page], Sequence[Choice]]


def found(folder: Path, *, judges: Sequence[str] = ("ann", "ben"), pairs: int = 6, methods=("mixed", "plain")) -> Path:
    """A study of pictures that were generated, with photos of a subject, nobody having answered."""
    for place, method in enumerate(methods):
        (folder / method).mkdir(parents=True)
        for number in range(pairs):
            image = Image.new("RGB", (32, 24), (30 * number, 90 * place, 60))
            request = Request(f"a cup on table {number}", seed=3, number=number)
            write_picture(folder / method, image, request=request, settings={"adapter": method})
    (folder / "photos").mkdir()
    Image.new("RGB", (30, 20), "red").save(folder / "photos" / "one.jpg")
    material = read_material([str(folder / method) for method in methods], photos=folder / "photos")
    found_study(folder / "study", material, setup=Setup(judges=tuple(judges), same=1, swapped=1))
    return folder / "study"


def judge(folder: Path, *, method: str | None, is_closed: bool = True, most: int | None = None) -> None:
    """Every judge prefers a method where it is shown, a tie without one, for every question; checks are passed."""
    study = Study(folder)
    try:
        for one in study.judges:
            answered = 0
            while (page := study.page(one)) is not None and (most is None or answered < most):
                choice = _choice(study, page, method)
                study.answer(one, page.token, choices=[choice] * len(study.questions), seconds=5.0).result()
                answered += 1
        if is_closed:
            study.stop().result()
    finally:
        study.close()


def _choice(study: Study, page: Page, method: str | None) -> Choice:
    rows = study._reader.execute('SELECT "left", "right" FROM showing WHERE token = ?', (page.token,))
    left, right = rows.fetchone()
    if method is None or left == right:
        return "tie"
    wanted = study.methods.index(method)
    return "left" if left == wanted else "right" if right == wanted else "tie"
