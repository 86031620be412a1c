"""The page's server by its settings, and what is shown of a dialogue."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from llmf_hydra.config import compose
from llmf_hydra.config.groups.serve import ServeConfig
from llmf_hydra.webui.addresses import address
from llmf_hydra.webui.talk import free_port


def config(*words: str) -> ServeConfig:
    return compose.typed(compose.composed(["job=webui", *words])).serve


@contextmanager
def served(cwd: Path, serve: ServeConfig) -> Iterator[httpx.Client]:
    from llmf_hydra.webui.server import Server  # two seconds of Gradio, in each process of the tests

    server = Server(serve, cwd)
    try:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
            yield client
    finally:
        server.close()


def test_port_name_and_root_path_are_those_of_the_config(tmp_path: Path) -> None:
    port = free_port()
    with served(tmp_path, config(f"serve.gradio_server_port={port}")) as client:
        assert client.base_url.port == port
        assert client.get("/config").json()["root"].rstrip("/") == f"http://127.0.0.1:{port}"
        assert client.get("/config", headers={"Host": "a-site.example"}).status_code == 400
    with served(tmp_path, config("serve.gradio_server_port=0", "serve.gradio_root_path=/llm")) as client:
        root = client.get("/config", headers={"Host": "proxy.example"}).json()["root"]
        assert root.endswith("/llm")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], "127.0.0.1"),
        (["serve.gradio_server_name=0.0.0.0"], "0.0.0.0"),
        (["serve.gradio_ipv6=true"], "[::1]"),
        (["serve.gradio_ipv6=true", "serve.gradio_server_name='::'"], "[::]"),
    ],
)
def test_the_address(words: list[str], wanted: str) -> None:
    assert address(config(*words)) == wanted


def test_a_dialogue_is_shown_as_text_and_read_back_as_it_was() -> None:
    from llmf_hydra.webui.tabs.chat import _shown, _turns

    said = "<b>bold</b> &amp; <script>alert(1)</script> 1 < 2 & $$x$$"
    talk = [{"role": "user", "content": said}, {"role": "assistant", "content": ""}]
    shown = _shown(talk)  # type: ignore[arg-type]
    assert "<" not in shown[0]["content"]
    assert (
        _turns([{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in shown]) == talk
    )
