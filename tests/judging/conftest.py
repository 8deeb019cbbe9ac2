"""Small studies, and a client of a real server that sends what it is told to, for better or worse."""

import http.client
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

from moslora.judging.founding import Setup, found_study
from moslora.judging.material import read_material
from moslora.painting.png import write_picture
from moslora.painting.requests import Request

METHODS = ("zebra-lora", "quokka-mixer")


def draw(folder: Path, *, pairs: int, side: int = 24, prompt: str = "a red cup", shade: int = 0) -> Path:
    """A folder of `moslora generate`: plain pictures, each of another colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pairs):
        image = Image.new("RGB", (side, side), (20 * number % 256, shade, 90))
        request = Request(f"{prompt} {number}", seed=3, number=number)
        write_picture(folder, image, request=request, settings={"adapter": folder.name})
    return folder


@pytest.fixture
def drawn(tmp_path: Path) -> list[str]:
    """The folders of two methods, ten pairs."""
    return [str(draw(tmp_path / name, pairs=10, shade=100 * place)) for place, name in enumerate(METHODS)]


@pytest.fixture
def study_folder(tmp_path: Path, drawn: list[str]) -> Path:
    """A study of ten pairs, one check of each kind, two questions and three judges."""
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (30, 20), "red").save(photos / "one.jpg")
    found_study(tmp_path / "study", read_material(drawn, photos=photos), setup=Setup(judges=("ann", "ben", "cleo")))
    return tmp_path / "study"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def field(self, name: str) -> str:
        """The value of a hidden field."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.text)
        assert found, self.text
        return found[1]


@dataclass
class Browser:
    """Follows nothing, keeps cookies, sends the origin of its own site unless told otherwise."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, path: str, *, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        if method == "POST":
            sent |= {"Origin": f"http://127.0.0.1:{self.port}", "Content-Type": "application/x-www-form-urlencoded"}
        try:
            connection.request(method, path, body=body or None, headers=sent | (headers or {}))
            response = connection.getresponse()
            answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()
        if "set-cookie" in answer.headers:
            name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, fields: dict[str, Any] | None = None, **headers: str) -> Answer:
        return self.send("POST", path, body=urlencode(fields or {}).encode(), headers=headers)

    def judge(self, *choices: str) -> Answer:
        """Answer the page that is next."""
        page = self.get("/judge")
        fields = {"pair": page.field("pair"), "shown": page.field("shown")}
        return self.post("/judge/answer", fields | {f"q{place}": choice for place, choice in enumerate(choices)})


@dataclass
class Served:
    """A study that is being served in a thread of its own."""

    study: Any
    port: int

    def browser_of(self, name: str) -> Browser:
        """A browser that has opened a judge's link, or the admin's."""
        browser = Browser(self.port)
        tokens = {judge.name: f"/j/{judge.token}" for judge in self.study.judges}
        path = f"/admin/{self.study.admin_token}" if name == "admin" else tokens[name]
        assert browser.get(path).status == 200
        return browser


@pytest.fixture
def served() -> Iterator[Callable[[Path], Served]]:
    """Serve studies until the test ends."""
    pytest.importorskip("starlette", reason="needs starlette (pip install moslora[judge])")
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn (pip install moslora[judge])")
    from moslora.judging.hosting import listen, origins_of, server_of
    from moslora.judging.server import site
    from moslora.judging.study import Study

    running: list[Callable[[], None]] = []

    def serve(folder: Path) -> Served:
        study, listening = Study(folder), listen("127.0.0.1", port=0)
        port = listening.getsockname()[1]
        server: uvicorn.Server = server_of(site(study, origins=origins_of("127.0.0.1", port=port)))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join()
            listening.close()
            study.close()

        running.append(stop)
        return Served(study, port)

    yield serve
    for stop in running:
        stop()
