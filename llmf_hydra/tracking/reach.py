"""`check`: whether a tracker's server answers, before its library begins to retry for minutes."""

import socket
import urllib.error
import urllib.request
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from llmf_hydra.config.secrets import masked_text

SECONDS = 5.0  # a server has for its first answer
DATABASES = {
    "postgresql": 5432,
    "mysql": 3306,
    "mssql": 1433,
}  # MLflow's databases with a server -> its usual port


class Unreachable(ConnectionError):
    """A server doesn't answer; the message names its address without the password, and the cause."""


def check(uri: str, remedy: str = "") -> None:
    """Ask the server of a URI for any answer at all. Raises Unreachable after at most a few seconds.

    An address without a server (a file, SQLite, the name of a profile) passes.
    """
    try:
        parts = urlsplit(uri)
        scheme, port = parts.scheme.partition("+")[0], parts.port
        if scheme in ("http", "https"):
            _get(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
        elif scheme in DATABASES and parts.hostname:
            socket.create_connection((parts.hostname, port or DATABASES[scheme]), SECONDS).close()
    except (OSError, ValueError) as error:
        raise Unreachable(
            f"{masked_text(uri)} does not answer: {_cause(error)}{remedy and f'; {remedy}'}"
        ) from error


def _get(url: str) -> None:
    with suppress(urllib.error.HTTPError):  # it answers, if only to say that this page isn't there
        urllib.request.urlopen(url, timeout=SECONDS).close()


def _cause(error: BaseException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__
