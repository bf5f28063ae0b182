"""Kubernetes' own API server for the chart."""

import pytest

from support.kube import ASSETS, RealServer


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
    if not ASSETS:
        pytest.skip("a real kube-apiserver needs KUBEBUILDER_ASSETS")
    server = Strict(tmp_path_factory.mktemp("kube"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
