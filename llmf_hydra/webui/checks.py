"""Rules of job=webui."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra.checks.register import DISK, PACKAGES, rule
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import NO_VALUE, Problem
from llmf_hydra.optional import missing
from llmf_hydra.webui.addresses import host, is_local, version

JOB = ("webui",)
SHORTEST = 8  # characters of a password
NAME = "serve.gradio_server_name"


@rule("job.name", jobs=JOB, phase=PACKAGES)
def gradio_is_installed(cfg: Config) -> Iterator[Problem]:
    """job=webui needs the package gradio."""
    lacking = missing("gradio", extra="webui", key="job=webui")
    if lacking is not None:
        yield lacking


@rule(NAME, "serve.gradio_share", "serve.gradio_password", jobs=JOB)
def others_need_a_password(cfg: Config) -> Iterator[Problem]:
    """Whoever reaches the page starts processes as the user who started it, so a public link, and an address that
    other machines reach, need serve.gradio_password, which has at least 8 characters.
    """
    serve = cfg.serve
    remedy = "set GRADIO_PASSWORD, or reach it through ssh -L with the default address"
    if serve.gradio_password is None:
        what = "whoever reaches the page starts processes as you, and there is no serve.gradio_password"
        if not is_local(host(serve)):
            yield Problem(NAME, serve.gradio_server_name, what, remedy)
        if serve.gradio_share:
            yield Problem("serve.gradio_share", True, what, "set GRADIO_PASSWORD")
    elif len(serve.gradio_password) < SHORTEST:
        what = f"has {len(serve.gradio_password)} characters, and must have at least {SHORTEST}"
        yield Problem("serve.gradio_password", NO_VALUE, what)


@rule(NAME, "serve.gradio_ipv6", jobs=JOB)
def the_address_is_of_the_right_kind(cfg: Config) -> Iterator[Problem]:
    """serve.gradio_server_name is an IPv6 address exactly with serve.gradio_ipv6=true; the name of a machine may be
    given with both.
    """
    name = host(cfg.serve)
    kind = version(name)
    if not name or any(sign in name for sign in "/ @"):
        yield Problem(NAME, cfg.serve.gradio_server_name, "is no address", "such as 127.0.0.1 or localhost")
    elif kind is not None and (kind == 6) != cfg.serve.gradio_ipv6:
        asked = (
            "serve.gradio_ipv6=true" if kind == 6 else "serve.gradio_ipv6=false, or the address :: for all"
        )
        yield Problem(NAME, cfg.serve.gradio_server_name, f"is an address of IPv{kind}", f"set {asked}")


@rule("serve.gradio_root_path", jobs=JOB)
def the_root_path_is_one(cfg: Config) -> Iterator[Problem]:
    """serve.gradio_root_path is empty, /PATH, or the page's whole address http(s)://HOST/PATH."""
    path = cfg.serve.gradio_root_path
    if path and not path.startswith(("/", "http://", "https://")):
        what = "is neither /PATH nor http(s)://HOST/PATH"
        yield Problem("serve.gradio_root_path", path, what, f"such as /{path.strip('/')}")


@rule("serve.gradio_allowed_paths", jobs=JOB, phase=DISK)
def the_allowed_folders_are_there(cfg: Config) -> Iterator[Problem]:
    """serve.gradio_allowed_paths are folders that are there."""
    for path in cfg.serve.allowed_folders:
        if not Path(path).is_dir():
            yield Problem("serve.gradio_allowed_paths", path, "there is no such folder")


@rule("serve.gradio_server_port", NAME, jobs=JOB, phase=DISK)
def the_port_is_free(cfg: Config) -> Iterator[Problem]:
    """serve.gradio_server_port is one that nothing listens on at serve.gradio_server_name; 0 takes a free one."""
    port, name = cfg.serve.gradio_server_port, host(cfg.serve)
    try:
        kind, _, _, _, place = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(place)
    except socket.gaierror as error:
        yield Problem(NAME, name, f"cannot be resolved: {error.strerror}", "such as 127.0.0.1 or localhost")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = "end what listens there, or name another port; 0 takes a free one"
            yield Problem("serve.gradio_server_port", port, "is in use", remedy)
        elif error.errno == errno.EACCES:
            yield Problem("serve.gradio_server_port", port, "is not open to users", "take one above 1023")
        else:
            yield Problem(NAME, name, f"cannot be listened on: {os.strerror(error.errno or 0)}")
