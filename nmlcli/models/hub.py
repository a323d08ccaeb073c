"""The hub that weights come from: one clear line, at once, where it cannot be reached."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import huggingface_hub.constants

from nmlcli.errors import NmlError


@contextmanager
def fetching(what: str, remedy: str) -> Iterator[None]:
    """Inside it a library may fetch files of the hub, or take them from its cache.

    Raises NmlError, naming what was wanted and what to do, where it cannot.
    """
    offline, reached = huggingface_hub.constants.HF_HUB_OFFLINE, answers()
    if not reached:  # else huggingface_hub tries again and again for 40 seconds
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    except (OSError, RuntimeError) as error:
        why = brief(error) if reached else "it cannot be reached"
        raise NmlError(f"{what} cannot be fetched from the hub ({why})", remedy) from error
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = offline


def answers() -> bool:
    """Whether the hub can be reached; taken as given where a proxy stands in between."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def brief(error: BaseException) -> str:
    """The first two lines of another library's message, cut where it gets long."""
    text = " ".join(str(error).splitlines()[:2]).strip() or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "…"
