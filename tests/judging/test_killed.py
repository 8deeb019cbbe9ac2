"""A server that is killed in the middle of answering: what it acknowledged is there, and nothing else."""

import http.client
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from threading import Event, Thread

import pytest

from moslora.judging.judgements import opened, read_study
from tests.judging.conftest import Browser

pytest.importorskip("uvicorn", reason="needs starlette and uvicorn (pip install moslora[judge])")


def answer_until_killed(browser: Browser, path: str, acknowledged: list[str], *, goal: int, reached: Event) -> None:
    """Answer page after page; `acknowledged` has the pages of which the server said that they are kept."""
    try:
        browser.get(path)
        while 'name="pair"' in (page := browser.get("/judge")).text:
            fields = {"pair": page.field("pair"), "shown": page.field("shown"), "q0": "left", "q1": "tie"}
            if browser.post("/judge/answer", fields).status == 303:
                acknowledged.append(fields["pair"])
            if len(acknowledged) >= goal:
                reached.set()
    except (OSError, http.client.HTTPException):
        pass
    reached.set()


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_at_any_moment_loses_nothing_acknowledged(study_folder: Path, seed: int):
    chance = random.Random(seed)
    command = [sys.executable, "-m", "moslora", "judge", "serve", "--study", str(study_folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    links = [process.stdout.readline().split()[-1] for _ in range(4)][1:]
    reached, kept = Event(), [[] for _ in links]
    threads = []
    for link, acknowledged in zip(links, kept, strict=True):
        host, _, token = link.removeprefix("http://").partition("/")
        browser = Browser(int(host.rpartition(":")[2]))
        goal = {"goal": chance.randint(1, 9), "reached": reached}
        threads.append(Thread(target=answer_until_killed, args=(browser, f"/{token}", acknowledged), kwargs=goal))
        threads[-1].start()
    reached.wait(60)
    process.kill()
    process.wait()
    process.stdout.close()
    for thread in threads:
        thread.join()

    found = read_study(study_folder).judgements
    by_page = Counter((one.judge, one.pair, one.check) for one in found)
    assert set(by_page.values()) <= {2}  # both questions, or none
    with opened(study_folder) as database:
        stored = {token for (token,) in database.execute("SELECT token FROM showing JOIN judgement ON showing = id")}
    for acknowledged in kept:
        assert set(acknowledged) <= stored
    assert len(stored) - sum(map(len, kept)) <= len(links)  # at most one each whose word was lost on the way
    assert sum(map(len, kept)) > 0
