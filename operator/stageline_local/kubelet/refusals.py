"""Why a container cannot be made; Kubernetes' words where it has them."""

from __future__ import annotations


class ConfigError(Exception):
    """What the pod refers to is not there, or asks for what processes cannot have."""
