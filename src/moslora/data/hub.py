"""Whether the model hub can be reached, asked once: without a network its client tries again for half a minute."""

import os
import socket
import sys
import threading
from functools import cache
from urllib.parse import urlparse

PATIENCE_SECONDS = 2.0
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def stay_offline_if_unreachable() -> None:
    """Work from the local cache alone where the hub does not answer; does nothing behind a proxy."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    if not is_reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
        if "datasets" in sys.modules:  # otherwise it asks the client when it is imported, which takes seconds
            from datasets import config

            config.HF_HUB_OFFLINE = True


@cache
def is_reachable(endpoint: str) -> bool:
    """Whether a host takes connections within a few seconds; finding its address counts."""
    place, found = urlparse(endpoint), []

    def connect() -> None:
        try:
            port = place.port or (80 if place.scheme == "http" else 443)
            socket.create_connection((place.hostname, port), timeout=PATIENCE_SECONDS).close()
            found.append(True)
        except OSError:
            pass

    asking = threading.Thread(target=connect, daemon=True)  # looking a name up knows no timeout
    asking.start()
    asking.join(PATIENCE_SECONDS)
    return bool(found)
