"""The hub is asked only where it answers."""

import socket

import pytest
from huggingface_hub import constants

from moslora.data import hub


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    """No proxy, and what was found of the hub before is forgotten."""
    import datasets

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for name in hub.PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    hub.is_reachable.cache_clear()


def test_a_host_that_takes_connections_is_reachable():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert hub.is_reachable(f"http://127.0.0.1:{server.getsockname()[1]}")


def test_without_the_hub_the_cache_alone_is_used(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")  # where nobody listens any more
    hub.stay_offline_if_unreachable()
    assert constants.HF_HUB_OFFLINE
    import datasets

    assert datasets.config.HF_HUB_OFFLINE


def test_behind_a_proxy_nothing_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    hub.stay_offline_if_unreachable()
    assert not constants.HF_HUB_OFFLINE
