"""The hub out of reach: at once, in one line, and nothing stays changed."""

import socket

import huggingface_hub.constants
import pytest

from nmlcli.errors import NmlError
from nmlcli.models import hub

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.mark.parametrize("reached", [True, False])
def test_inside_nothing_is_asked_of_a_hub_that_does_not_answer(monkeypatch, reached):
    monkeypatch.setattr(hub, "answers", lambda: reached)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with hub.fetching("it", "do this"):
        assert huggingface_hub.constants.HF_HUB_OFFLINE is not reached
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("reached", "error", "why"),
    [
        (True, OSError("no such file\nat all\nand more"), "no such file at all"),
        (True, RuntimeError("x" * 200), "x" * 157 + "…"),
        (True, OSError(), "OSError"),
        (False, OSError("Max retries exceeded"), "it cannot be reached"),
    ],
)
def test_what_goes_wrong_is_one_line(monkeypatch, reached, error, why):
    monkeypatch.setattr(hub, "answers", lambda: reached)
    with pytest.raises(NmlError) as caught, hub.fetching("it", "do this"):
        raise error
    assert str(caught.value) == f"it cannot be fetched from the hub ({why}): do this"
    assert caught.value.__cause__ is error


def test_whether_it_answers(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", place)
        assert hub.answers()
    assert not hub.answers()
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert hub.answers()
