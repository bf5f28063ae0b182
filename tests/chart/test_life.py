"""Installing, upgrading and uninstalling on Kubernetes' own API server."""

import json
import re
import shutil
import subprocess
import textwrap

import pytest
import yaml

from stageline_api.manifest import read_manifest
from support.chart import CHART, NAMESPACE, helm
from support.kube import ASSETS

RELEASE = ("--namespace", NAMESPACE, "--kubeconfig")
KINDS = (
    "serviceaccounts,services,deployments,networkpolicies,roles,rolebindings,clusterroles,"
    "clusterrolebindings,secrets,pods"
)
CRD = "pipelinedeployments.stageline.dev"


@pytest.fixture
def cluster(real, tmp_path):
    """Nothing of Stageline's is there, before and after."""
    found = Cluster(real.server, tmp_path / "kubeconfig")
    found.clean()
    yield found
    found.clean()


class Cluster:
    """An API server, as kubectl and helm see it."""

    def __init__(self, server, kubeconfig):
        self.kubeconfig = kubeconfig
        at = {"server": server.url, "certificate-authority": server.ca_file}
        context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test", "contexts": [context],
            "clusters": [{"name": "test", "cluster": at}],
            "users": [{"name": "test", "user": {"token": server.token}}],
        }  # fmt: skip
        kubeconfig.write_text(yaml.safe_dump(config))

    def helm(self, *arguments, values=None):
        told = helm(*arguments, *RELEASE, str(self.kubeconfig), values=values)
        assert told.returncode == 0, f"helm {arguments[0]}: {told.stderr}"
        return told.stdout

    def kubectl(self, *arguments, fed=None, check=True):
        program = shutil.which("kubectl", path=ASSETS)
        told = subprocess.run(
            [program, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=fed, text=True, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        assert told.returncode == 0 or not check, f"kubectl {arguments[0]}: {told.stderr}"
        return told.stdout

    def objects(self):
        """Kind and name of everything of ours, the CRD apart."""
        label = "app.kubernetes.io/part-of=stageline"
        listed = self.kubectl("get", KINDS, "--all-namespaces", "-l", label, "-o", "json")
        return {(obj["kind"], obj["metadata"]["name"]) for obj in json.loads(listed)["items"]}

    def has_crd(self):
        return CRD in self.kubectl("get", "crd", "-o", "name")

    def clean(self):
        for kind, name in self.objects():
            self.kubectl("delete", kind, name, "-n", NAMESPACE, "--ignore-not-found", check=False)
        self.kubectl("delete", "secrets", "-n", NAMESPACE, "-l", "owner=helm", check=False)
        self.kubectl("delete", "crd", CRD, "--ignore-not-found")
        self.kubectl("delete", "namespace", NAMESPACE, "--wait=false", check=False)
        finalized = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": NAMESPACE}}
        self.kubectl(  # there is no controller that would do it
            "replace", "--raw", f"/api/v1/namespaces/{NAMESPACE}/finalize", "-f", "-",
            fed=json.dumps(finalized), check=False,
        )  # fmt: skip


def test_install_upgrade_and_uninstall_leave_the_crd_and_nothing_else(cluster):
    before = cluster.objects()  # of other tests, in namespaces of their own
    notes = cluster.helm("install", "stageline", str(CHART), "--create-namespace")
    assert f"kubectl --namespace {NAMESPACE} rollout status deployment/stageline" in notes
    (manifest,) = re.findall(r"<<MANIFEST\n(.*?)\n *MANIFEST", notes, re.S)
    assert read_manifest(textwrap.dedent(manifest), "NOTES").metadata.name == "my-model"
    installed = cluster.objects()
    assert ("Deployment", "stageline") in installed
    assert ("NetworkPolicy", "stageline") in installed
    assert cluster.has_crd()

    fewer = {"networkPolicy": {"enabled": False}, "operator": {"workers": 3}}
    cluster.helm("upgrade", "stageline", str(CHART), "--reset-then-reuse-values", values=fewer)
    assert installed - cluster.objects() == {("NetworkPolicy", "stageline")}
    deployment = cluster.kubectl("get", "deployment/stageline", "-n", NAMESPACE, "-o", "json")
    assert "--workers=3" in deployment

    cluster.helm("uninstall", "stageline")
    assert cluster.objects() == before
    assert cluster.has_crd(), "the CRD went with the chart, and every resource with it"


def test_the_same_manifests_are_taken_by_kubectl_and_again(cluster):
    manifest = str(CHART.parents[1] / "manifests" / "install.yaml")
    cluster.kubectl("apply", "-f", manifest)
    assert ("Deployment", "stageline") in cluster.objects()
    assert cluster.has_crd()
    again = cluster.kubectl("apply", "-f", manifest)
    assert {line.rpartition(" ")[2] for line in again.splitlines()} == {"unchanged"}
