"""Fifty judges at once on one server: is any answer lost or doubled, and how long does a judge wait?

    python -m benchmarks.judging_load [--judges 50] [--pairs 32] [--pauses 1 0]

The server runs in a process of its own, `moslora judge serve` over loopback; the judges share this one. Each opens
the page, fetches its two pictures, looks for a moment (uniform, of this mean in seconds; people take several) and
answers; every fifth answer is sent twice, as by a hasty click. Waiting is measured from the first byte sent to the
last received. Results: a table, and benchmarks/results/judging_load.json.
"""

import argparse
import asyncio
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.results import Row, save
from moslora.judging.judgements import read_study
from moslora.painting.png import write_picture
from moslora.painting.requests import Request

METHODS = ("first", "second")
PICTURE_PIXELS = 128
TARGET_MS = 100.0
TWICE = 5


class Connection:
    """One judge's browser: a connection that is kept, and a cookie."""

    def __init__(self, port: int) -> None:
        self.port, self.cookie = port, ""
        self.waits: dict[str, list[float]] = {"page": [], "picture": [], "answer": []}

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, kind: str, path: str, body: str | None = None) -> tuple[int, str]:
        """Status and text of the answer."""
        start = time.perf_counter()
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"Cookie: {self.cookie}"] if self.cookie else []
        if body is not None:
            lines += [f"Origin: http://127.0.0.1:{self.port}", "Content-Type: application/x-www-form-urlencoded"]
            lines += [f"Content-Length: {len(body)}"]
        self.writer.write("\r\n".join([*lines, "", body or ""]).encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head)
        content = await self.reader.readexactly(int(length[1]) if length else 0)
        self.waits[kind].append(time.perf_counter() - start)
        if given := re.search(r"set-cookie: ([^;]+)", head):
            self.cookie = given[1]
        return int(head.split()[1]), content.decode("latin-1")


async def judge(connection: Connection, link: str, *, pause: float, chance: random.Random) -> int:
    """Answer everything; how many pages there were."""
    await connection.open()
    await connection.send("page", urlsplit(link).path)
    answered = 0
    while True:
        status, page = await connection.send("page", "/judge")
        assert status == 200, page
        token = re.search(r'name="pair" value="([^"]+)"', page)
        if token is None or "All done" in page:
            connection.writer.close()
            return answered
        for path in re.findall(r'src="(/picture/[^"]+)"', page):
            assert (await connection.send("picture", path))[0] == 200
        await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
        shown = re.search(r'name="shown" value="(\d+)"', page)
        body = urlencode({"pair": token[1], "shown": shown[1] if shown else "", "q0": "left", "q1": "tie"})
        answered += 1
        for _ in range(2 if answered % TWICE == 0 else 1):
            status, text = await connection.send("answer", "/judge/answer", body)
            assert status == 303, text


def measure(judges: int, pairs: int, *, pause: float) -> dict[str, Any]:
    """Begin a study, have it judged, and count what is kept."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [str(draw(Path(scratch) / name, pairs, seed=seed)) for seed, name in enumerate(METHODS)]
        study = Path(scratch) / "study"
        command = [sys.executable, "-m", "moslora", "judge", "serve", *folders, "--study", str(study), "--port", "0"]
        command += ["--judges", str(judges), "--question", "a: A?", "--question", "b: B?"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert server.stdout is not None
        links = [server.stdout.readline().split()[-1] for _ in range(judges + 1)][1:]
        connections = [Connection(urlsplit(link).port or 80) for link in links]
        start = time.perf_counter()
        pages = asyncio.run(_all(connections, links, pause))
        seconds = time.perf_counter() - start
        server.kill()  # what was acknowledged is on disk
        server.wait()
        server.stdout.close()
        counted = Counter((one.judge, one.pair, one.check, one.question) for one in read_study(study).judgements)
    waits = {kind: [wait for one in connections for wait in one.waits[kind]] for kind in connections[0].waits}
    return {
        "judges": judges,
        "pairs": pairs,
        "pause_seconds": pause,
        "wall_seconds": round(seconds, 2),
        "judgements": counted.total(),
        "lost": 2 * sum(pages) - len(counted),
        "doubled": counted.total() - len(counted),
        "milliseconds": {kind: percentiles(found) for kind, found in waits.items()},
    }


async def _all(connections: list[Connection], links: list[str], pause: float) -> list[int]:
    return await asyncio.gather(
        *(
            judge(connection, link, pause=pause, chance=random.Random(link))
            for connection, link in zip(connections, links, strict=True)
        )
    )


def draw(folder: Path, pairs: int, *, seed: int) -> Path:
    """Pictures of noise, as a subject's demo draws them in size."""
    folder.mkdir()
    noise = np.random.default_rng(seed)
    for number in range(pairs):
        pixels = noise.integers(0, 255, (PICTURE_PIXELS, PICTURE_PIXELS, 3), dtype=np.uint8)
        write_picture(folder, Image.fromarray(pixels), request=Request(f"prompt {number}", seed=0, number=number))
    return folder


def percentiles(waits: list[float]) -> dict[str, float]:
    return {f"p{share}": round(1000 * float(np.percentile(waits, share)), 1) for share in (50, 95, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judges", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--pauses", type=float, nargs="+", default=[1.0, 0.0])
    given = parser.parse_args()
    found = [measure(given.judges, given.pairs, pause=pause) for pause in given.pauses]
    table = Table("pause", "seconds", "judgements", "lost", "doubled", "page (p50 / p95 / p99 ms)", "picture", "answer")
    for one in found:
        shown = [" / ".join(map(str, waits.values())) for waits in one["milliseconds"].values()]
        plain = [one[name] for name in ("pause_seconds", "wall_seconds", "judgements", "lost", "doubled")]
        table.add_row(*map(str, [*plain, *shown]))
    Console(width=120).print(table)
    first = found[0]
    rows = [
        Row(
            f"a judge's answer is kept: p95 of {given.judges} judges x {given.pairs} pairs at once",
            "100 ms",
            first["milliseconds"]["answer"]["p95"],
            target=TARGET_MS,
            unit="ms",
        )
    ]
    save("judging_load", {"runs": found}, rows)


if __name__ == "__main__":
    main()
