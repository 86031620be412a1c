"""Where the page listens. Without Gradio, for the checks."""

import ipaddress

from llmf_hydra.config.groups.serve import ServeConfig
from llmf_hydra.config.schema import entries

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")
KEY = "serve.gradio_server_name"


def host(serve: ServeConfig) -> str:
    """The address or name that the page binds to: as given, else the loopback of IPv4 or IPv6."""
    default = entries()[KEY].param.default
    if serve.gradio_ipv6 and serve.gradio_server_name == default:
        return "::1"
    return serve.gradio_server_name.strip("[]")


def address(serve: ServeConfig) -> str:
    """The same as Gradio wants it: IPv6 in brackets."""
    name = host(serve)
    return f"[{name}]" if ":" in name else name


def version(name: str) -> int | None:
    """4 or 6 for an IP address, None for the name of a machine."""
    try:
        return ipaddress.ip_address(name).version
    except ValueError:
        return None


def is_local(name: str) -> bool:
    """Whether only this machine reaches what listens there."""
    return name == "localhost" or (version(name) is not None and ipaddress.ip_address(name).is_loopback)
