"""A model that cannot be had is told of at once."""

import socket
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from moslora.data import hub
from moslora.errors import ConfigError
from moslora.runs.model_names import check_obtainable


@pytest.fixture(autouse=True)
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No proxy, an empty cache, and a hub at an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in hub.PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    hub.is_reachable.cache_clear()


@pytest.mark.parametrize("name", ["nobody/nope", "nope"])
def test_a_model_of_the_hub_is_refused_where_it_cannot_be_reached(name: str, tmp_path: Path):
    start = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        check_obtainable(name)
    assert time.monotonic() - start < 3
    assert str(caught.value) == (
        f"model.path '{name}' is not on this machine (no folder, not in {tmp_path / 'cache'}), and"
        f" {constants.ENDPOINT} cannot be reached: give a local folder, or try again with a connection"
    )


def test_what_is_cached_or_comes_with_a_package_needs_no_hub(tmp_path: Path):
    (tmp_path / "cache" / "models--owner--kept" / "snapshots").mkdir(parents=True)
    for name in ("owner/kept", "smollm2", "emoji-sdxl", str(tmp_path), "some/model.gguf"):
        check_obtainable(name)
