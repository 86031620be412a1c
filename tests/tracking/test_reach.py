"""A server that doesn't answer is named within seconds, with the cause and without its password."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llmf_hydra.tracking import reach
from llmf_hydra.tracking.open import open_trackers
from llmf_hydra.tracking.reach import Unreachable, check


class NotFound(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), NotFound) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield f"127.0.0.1:{door.getsockname()[1]}"


def test_a_server_that_answers_anything_is_reachable(server: str) -> None:
    for uri in (
        f"http://{server}",
        f"http://me:pw@{server}/mlflow",
        f"postgresql+psycopg2://me:pw@{server}/db",
    ):
        check(uri)
    for uri in ("sqlite:///x.db", "mlruns", "/a/folder", "databricks", "databricks://profile"):
        check(uri)


def test_one_that_does_not_answer_is_named_with_the_cause(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "SECONDS", 0.3)
    for uri, expected in {
        "http://me:pw@127.0.0.1:9/x": "http://me:***@127.0.0.1:9/x does not answer: Connection refused",
        f"http://{silent}": f"http://{silent} does not answer: timed out",
        "mysql://127.0.0.1:9/db": "mysql://127.0.0.1:9/db does not answer: Connection refused",
        "http://host:port": "http://host:port does not answer: Port could not be cast",
        "http://no.such.host.invalid": "http://no.such.host.invalid does not answer: ",
    }.items():
        with pytest.raises(Unreachable) as unreachable:
            check(uri)
        assert str(unreachable.value).startswith(expected) and len(str(unreachable.value)) > len(expected) - 1


def test_a_run_is_told_within_seconds(make_tracking, make_info, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    tracking = make_tracking(
        mlflow=True, mlflow_tracking_uri="http://me:pw@127.0.0.1:9", wandb=True, wandb_api_key="0" * 40
    )
    began = time.monotonic()
    with open_trackers(tracking, make_info()) as trackers:
        trackers.log({"loss": 1.0}, 1)
    assert time.monotonic() - began < 30
    said = capfd.readouterr().err.splitlines()
    left_out = "is left out from here on: http://"
    assert sorted(said) == [
        f"warning: tracking=mlflow {left_out}me:***@127.0.0.1:9 does not answer: Connection refused",
        f"warning: tracking=wandb {left_out}127.0.0.1:9 does not answer: Connection refused; "
        "WANDB_MODE=offline keeps the run on disk, to be synced later",
    ]
