"""The page's server: who may reach it, by which name, and with which password."""

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from llmf_hydra.config.groups.serve import ServeConfig
from llmf_hydra.errors import TrainingFailed
from llmf_hydra.webui.addresses import LOOPBACK, address
from llmf_hydra.webui.fields import Place
from llmf_hydra.webui.page import CSS, build, theme
from llmf_hydra.webui.tabs.chat import Models
from llmf_hydra.webui.talk import free_port

WAIT = 1.0  # seconds before a wrong password is answered
UPLOAD = "1mb"  # nothing on the page takes a file
ASKED = "Any user name; the password is serve.gradio_password of whoever started the page."
OF_GRADIO = "GRADIO_"  # its own variables, most of which are none of ours


class Server:
    """A page that is served from its making until `close`."""

    def __init__(self, serve: ServeConfig, cwd: Path):
        """Serve the page for the runs of a folder. Raises TrainingFailed where it can't be."""
        for name in [name for name in os.environ if name.startswith(OF_GRADIO)]:
            del os.environ[name]  # what is meant of them stands in the config
        inherited = dict(os.environ)
        self._models = Models()
        self._page = build(Place(cwd, tuple(Path(path) for path in serve.allowed_folders)), self._models)
        self._launch(serve)
        for name in os.environ.keys() - inherited.keys():
            del os.environ[name]
        os.environ.update(inherited)  # Gradio sets some, and runs that are started from here inherit them

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        return str(self._page.local_url)

    @property
    def share_url(self) -> str | None:
        """The public link, where there is one."""
        return self._page.share_url

    def close(self) -> None:
        """End the page and the models of its chats; the runs go on."""
        self._models.end_all()
        self._page.close(verbose=False)

    def _launch(self, serve: ServeConfig) -> None:
        password = serve.gradio_password
        try:
            self._page.launch(
                server_name=address(serve),
                server_port=serve.gradio_server_port or free_port(),
                root_path=serve.gradio_root_path,
                share=serve.gradio_share,
                auth=None if password is None else _only(password),  # type: ignore[arg-type] -- Gradio awaits it
                auth_message=ASKED,
                prevent_thread_lock=True,
                quiet=True,
                show_error=True,
                footer_links=["settings"],
                run_history=False,
                enable_monitoring=False,
                max_file_size=UPLOAD,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                theme=theme(),
                css=CSS,
                app_kwargs={"middleware": _middleware(serve)},
            )
        except (OSError, ValueError) as error:
            raise TrainingFailed(f"the page cannot be served: {error}") from error
        if serve.gradio_share and self._page.share_url is None:
            self.close()
            raise TrainingFailed("the public link cannot be made: Gradio's share server is out of reach")


def _only(password: str) -> Callable[[str, str], Awaitable[bool]]:
    """A check of the password, in constant time; a wrong one is answered late."""

    async def check(user: str, given: str) -> bool:
        right = hmac.compare_digest(given.encode(), password.encode())
        if not right:
            await asyncio.sleep(WAIT)
        return right

    return check


def _middleware(serve: ServeConfig) -> list[Middleware]:
    """Without a password, a page of the loopback answers by its own names only: a site that has its name resolved to
    127.0.0.1 (DNS rebinding) would else start runs from its visitors' browsers. A proxy has its own names.
    """
    if serve.gradio_password is not None or serve.gradio_root_path:
        return []
    return [Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))]
