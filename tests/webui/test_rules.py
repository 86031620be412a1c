"""Who may reach the page, and by which address: refused before anything is served."""

import socket
from pathlib import Path

import pytest
from support.command_line import Cli

WRONG = {
    "everyone without a password": (
        ["serve.gradio_server_name=0.0.0.0"],
        "serve.gradio_server_name=0.0.0.0: whoever",
    ),
    "a link without a password": (
        ["serve.gradio_share=true"],
        "serve.gradio_share=true: whoever reaches the page",
    ),
    "a short password": (["serve.gradio_password=short"], "serve.gradio_password: has 5 characters"),
    "IPv6 unasked": (["serve.gradio_server_name=::1"], "set serve.gradio_ipv6=true"),
    "IPv4 against IPv6": (
        ["serve.gradio_server_name=127.0.0.2", "serve.gradio_ipv6=true"],
        "an address of IPv4",
    ),
    "no address": (
        ["serve.gradio_server_name=http://x", "serve.gradio_password=long-enough"],
        "is no address",
    ),
    "no machine": (
        ["serve.gradio_server_name=none.invalid", "serve.gradio_password=long-enough"],
        "cannot be resolved",
    ),
    "no root path": (["serve.gradio_root_path=llmf"], "such as /llmf"),
    "no folder": (["serve.gradio_allowed_paths=/none/such"], "there is no such folder"),
    "a port beyond": (["serve.gradio_server_port=70000"], "in [0, 65535]"),
    "what only its runs have": (
        ["training.max_steps=5"],
        "training.max_steps=5: has no effect with job=webui",
    ),
    "a scheduler": (["launch=slurm"], "runs where it is started"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_refused_before_it_is_served(cli: Cli, name: str, tmp_path: Path) -> None:
    words, part = WRONG[name]
    done = cli("job=webui", "serve.gradio_server_port=0", *words, timeout=60)
    assert done.returncode == 2 and part in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_port_that_is_taken(cli: Cli) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = cli("job=webui", f"serve.gradio_server_port={port}", timeout=60)
    assert done.returncode == 2 and f"serve.gradio_server_port={port}: is in use" in done.stderr
