"""Group `serve`: the HTTP API and the web page (spec table environment, API and Web UI)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param

API, WEB = ("api",), ("webui",)


@dataclass
class ServeConfig:
    host: str = param("0.0.0.0", "Address the API listens on.", env="API_HOST", jobs=API, planned=True)
    port: int = param(
        8000, "Port the API listens on.", env="API_PORT", ge=0, le=65535, jobs=API, planned=True
    )
    api_key: str | None = param(
        None, "Key a client must show.", env="API_KEY", secret=True, jobs=API, planned=True
    )
    model_name: str | None = param(
        None, "Name under which the API offers the model.", env="API_MODEL_NAME", jobs=API, planned=True
    )
    verbose: bool = param(True, "Log requests and answers.", env="API_VERBOSE", jobs=API, planned=True)
    root_path: str = param(
        "", "Path under which a proxy offers the API.", env="FASTAPI_ROOT_PATH", jobs=API, planned=True
    )
    max_concurrent: int = param(
        1, "Requests that generate at the same time.", env="MAX_CONCURRENT", ge=1, jobs=API, planned=True
    )
    gradio_share: bool = param(
        False, "Make a public link of the web page.", env="GRADIO_SHARE", jobs=WEB, planned=True
    )
    gradio_server_name: str = param(
        "0.0.0.0", "Address the web page listens on.", env="GRADIO_SERVER_NAME", jobs=WEB, planned=True
    )
    gradio_server_port: int = param(
        7860, "Port of the web page.", env="GRADIO_SERVER_PORT", ge=0, le=65535, jobs=WEB, planned=True
    )
    gradio_root_path: str = param(
        "", "Path under which a proxy offers the web page.", env="GRADIO_ROOT_PATH", jobs=WEB, planned=True
    )
    gradio_ipv6: bool = param(
        False, "Let the web page listen on IPv6.", env="GRADIO_IPV6", jobs=WEB, planned=True
    )
