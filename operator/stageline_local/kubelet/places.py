"""Where a container's paths and names are on this machine: pure.

A process sees neither its pod's mounts nor the cluster's DNS. So in its command, environment and
configuration a mount's path becomes the real folder, and a pod's name becomes its address. All its
addresses are its own one: it shares the machine with every other pod.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

CLUSTER_DOMAIN: Final = "cluster.local"
_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_POD_NAME: Final = re.compile(
    rf"(?<![\w.-])({_LABEL})\.({_LABEL})\.({_LABEL})\.svc\.{re.escape(CLUSTER_DOMAIN)}(?![\w-]|\.\w)"
)
_EVERYWHERE: Final = re.compile(r"(?<![\w.:])(?:0\.0\.0\.0|\[::\])(?=:\d)")


def addressed(text: str, address_of: Callable[[str, str, str], str]) -> str:
    """Put the pods' addresses in; `address_of` takes hostname, subdomain and namespace."""
    return _POD_NAME.sub(lambda match: address_of(match[1], match[2], match[3]), text)


def bound(text: str, address: str) -> str:
    """Let what would listen on every address listen on this one."""
    return _EVERYWHERE.sub(address, text)


def located(text: str, folders: Mapping[str, str]) -> str:
    """Put the real folders in: `folders` maps mount paths to them. The longest mount wins."""
    if not folders:
        return text
    longest_first = sorted(folders, key=len, reverse=True)
    mounts = "|".join(re.escape(mount) for mount in longest_first)
    # A mount is meant where its path begins and ends: /a/b is in neither /x/a/b nor /a/bc.
    return re.sub(rf"(?<![\w.-])({mounts})(?![\w.-])", lambda match: folders[match[1]], text)
