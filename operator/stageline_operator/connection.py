"""From what an operator was told to a connection with the API server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from stageline_operator.settings import Connection

_CONNECTIONS: Final = 32
"""They keep an API server of any size busy; each has some 200 kB of buffers, for good."""


class NoConnectionError(Exception):
    """Nothing says where the API server is; the text is a sentence."""


async def configuration(told: Connection) -> Configuration:
    """By --server, else by --kubeconfig, else as a pod, else by kubectl's own kubeconfig."""
    made = Configuration()
    # The client would read ~/.netrc and proxies anew, in a thread, for each request.
    made.client_session_kwargs = {"trust_env": False}
    made.connection_pool_maxsize = _CONNECTIONS
    if told.server:
        return _explicit(made, told)
    try:
        if not told.kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=made)
        else:
            await config.load_kube_config(told.kubeconfig or None, client_configuration=made)
    except config.ConfigException as error:
        raise NoConnectionError(
            f"no way to an API server: {error}; give --server or --kubeconfig"
        ) from error
    return made


def _explicit(made: Configuration, told: Connection) -> Configuration:
    made.host = told.server.rstrip("/")
    made.ssl_ca_cert = told.ca_file or None
    if told.token_file:
        refresh = _token_from(Path(told.token_file))
        refresh(made)  # the client asks the hook only where it has a token already
        # setattr, since the client's own type says that there never is a hook.
        setattr(made, "refresh_api_key_hook", refresh)  # noqa: B010
    return made


def _token_from(path: Path) -> Callable[[Configuration], None]:
    """Tokens are replaced in their file before they run out, so it is read each time."""

    def refresh(made: Configuration) -> None:
        made.api_key["BearerToken"] = f"Bearer {path.read_text().strip()}"

    return refresh
