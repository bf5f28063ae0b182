"""Kubernetes' own API server for the chart."""

import pytest

from support.kube import RealServer


class Strict(RealServer):
    """As OpenShift has it: who makes an owner reference that blocks needs a right for it."""

    def _api_arguments(self):
        return [
            *super()._api_arguments(),
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        ]


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """One kube-apiserver for all tests of this process."""
    with Strict(tmp_path_factory.mktemp("kube")) as server:
        yield server
