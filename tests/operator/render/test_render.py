"""Children: owned, labelled, valid, restricted, and told what they must know."""

import json

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stageline_api.documents import RouterDocument, StageDocument
from stageline_api.plan import PlanError
from stageline_api.pods import PodTemplate
from stageline_operator import names, render
from stageline_operator.kinds import CHILDREN, SECRET, kind_of
from stageline_operator.labels import OWNER
from stageline_operator.observed import PipelineKey, RevisionRecord
from stageline_operator.render.patching import Patched, patched
from stageline_operator.settings import RenderSettings
from support.podsecurity import restricted
from support.profiles import dense
from support.rendered import container, env, rendered

HOST = RenderSettings(allow_host_path=True)
SPECS = {
    "the least": "{}",
    "a GPU for each stage": "{resources: {limits: {nvidia.com/gpu: 1}, deviceMemory: 80Gi}}",
    "everything": """
        pipeline: {stages: 3, device: cpu}
        image: registry.example.com/worker@sha256:0123
        nodeSelector: {pool: gpu}
        tolerations:
        - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
        - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute}
        topologySpreadConstraints:
        - {topologyKey: zone, whenUnsatisfiable: DoNotSchedule}
        resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {memory: 8Gi}}
        podTemplate:
          metadata: {labels: {team: a}, annotations: {example.com/note: "1"}}
          spec:
            priorityClassName: high
            imagePullSecrets: [{name: registry}]
            containers:
            - {name: worker, env: [{name: HTTPS_PROXY, value: "http://proxy"}]}
        stageOverrides:
        - stages: [2]
          nodeSelector: {gpu: a100}
          tolerations: [{key: a100, operator: Exists}]
          resources: {limits: {memory: 16Gi}}
          podTemplate: {spec: {runtimeClassName: nvidia}}
        router:
          replicas: 3
          port: 9000
          image: router:2
          resources: {requests: {cpu: 1}}
          podTemplate: {spec: {priorityClassName: higher}}
    """,
}  # fmt: skip


def pods(children):
    for child in children:
        if child["kind"] == "Pod":
            yield child
        if child["kind"] == "Deployment":
            yield child["spec"]["template"]


def check(children):
    """What must be so of all that is rendered."""
    for child in children:
        kubernetes_validate.validate(child, "1.37", strict=True)
        metadata = child["metadata"]
        assert kind_of(child) in (*CHILDREN, SECRET)
        assert metadata["labels"][OWNER] == metadata["ownerReferences"][0]["name"]
        assert all(len(value) <= 63 for value in metadata["labels"].values())
    for pod in pods(children):
        assert restricted(pod) == []
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("uri", ["pvc://models/llama", "hf://a/b@main"])
def test_every_child_is_valid_and_restricted(spec, uri):
    check(rendered(SPECS[spec], uri=uri).everything())


def test_a_folder_of_the_node_is_all_that_the_restricted_level_has_against_a_pod():
    made = rendered(uri="file:///models/llama", settings=HOST)
    assert restricted(made.stage()) == ["volume model is a hostPath"]
    kubernetes_validate.validate(made.stage(), "1.37", strict=True)


quantities = st.sampled_from(["1", "500m", "2Gi", "1.5G"])
labels = st.dictionaries(
    st.from_regex(r"[a-z]([a-z0-9.-]{0,10}[a-z0-9])?(/[A-Za-z]{1,5})?", fullmatch=True),
    st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,8}[A-Za-z0-9])?)?", fullmatch=True),
    max_size=3,
)
tolerations = st.lists(
    st.fixed_dictionaries(
        {"key": st.sampled_from(["gpu", "node.kubernetes.io/not-ready", "example.com/x"]),
         "operator": st.just("Exists")},
        optional={"effect": st.sampled_from(["NoSchedule", "NoExecute"])},
    ),
    max_size=3,
)  # fmt: skip
resources = st.fixed_dictionaries(
    {},
    optional={
        "limits": st.dictionaries(st.sampled_from(["cpu", "memory"]), quantities),
        "deviceMemory": st.just("80Gi"),
    },
)
templates = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries({"labels": labels, "annotations": labels}),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "priorityClassName": st.just("high"),
                "nodeSelector": labels,
                "terminationGracePeriodSeconds": st.integers(0, 600),
                "tolerations": tolerations,
            },
        ),
    },
)
spec = st.fixed_dictionaries(
    {"pipeline": st.fixed_dictionaries({"stages": st.integers(2, 6)})},
    optional={
        "nodeSelector": labels,
        "tolerations": tolerations,
        "resources": resources,
        "podTemplate": templates,
        "stageOverrides": st.lists(
            st.fixed_dictionaries(
                {"stages": st.just([1])},
                optional={
                    "nodeSelector": labels,
                    "tolerations": tolerations,
                    "podTemplate": templates,
                },
            ),
            max_size=1,
        ),
        "router": st.fixed_dictionaries(
            {"replicas": st.integers(1, 3), "port": st.integers(1, 65535)},
            optional={"podTemplate": templates},
        ),
    },
)
dns = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(spec, dns, dns, st.sampled_from(["hf://a/b", "pvc://a/b"]))
def test_whatever_the_spec_its_children_are_valid_and_restricted(spec, name, namespace, uri):
    try:
        made = rendered(spec, name=name, namespace=namespace, uri=uri)
    except PlanError:  # too little memory for its stages
        assume(False)
    check(made.everything())


def test_children_are_the_resources_own():
    made = rendered("{router: {replicas: 2}}")
    for child in made.everything():
        assert child["metadata"]["namespace"] == "models"
        assert child["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "stageline.dev/v1alpha1",
                "kind": "PipelineDeployment",
                "name": "llama",
                "uid": "0123-4567",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]


def expanded(text, ip="10.0.0.7"):
    """As the kubelet does: $$ is a dollar, $(VAR) its value."""
    return text.replace("$$", "\0").replace("$(POD_IP)", ip).replace("\0", "$")


@pytest.mark.parametrize("folder", ["llama", "with/$(HOME)/$$", 'quote"-{}-\\', ""])
def test_a_stage_is_told_its_document(folder):
    made = rendered("{pipeline: {stages: 3}}", uri=f"pvc://models/{folder}")
    pod = made.stage(1, index=4)
    variables = container(pod, "worker")["env"]
    assert variables[0]["name"] == "POD_IP", "POD_IP must come before what it is put into"
    document = StageDocument.model_validate_json(
        expanded(env(container(pod, "worker"))["STAGELINE_DOCUMENT"])
    )
    assert document.listen == "10.0.0.7:7070"
    assert document.uri == f"file:///var/run/stageline/model/{folder}".rstrip("/")
    assert (document.model, document.stage, document.stages) == ("llama", 1, 3)
    assert document.pipeline == names.pipeline_name("llama", PipelineKey(made.record.revision, 4))
    assert document.revision == pod["metadata"]["labels"]["stageline.dev/revision"]
    host = f"{pod['spec']['hostname']}.{pod['spec']['subdomain']}.models.svc.cluster.local"
    assert document.addresses[1] == f"{host}:7070"
    assert pod["spec"]["hostname"] == pod["metadata"]["name"]
    assert pod["spec"]["subdomain"] == render.stages_service(made.resource)["metadata"]["name"]


def test_a_pod_of_an_old_revision_is_made_from_its_record():
    old, new = rendered("{pipeline: {stages: 2}}"), rendered("{pipeline: {stages: 3}}")
    record = RevisionRecord.model_validate_json(
        json.dumps(render.revision_object(old.resource, old.record)["data"])
    )
    assert record == old.record
    again = render.stage_pod(new.resource, record, old.key(1), new.settings)
    assert again == old.stage(1)


@pytest.mark.parametrize(
    ("uri", "inside", "volume"),
    [
        (
            "pvc://models",
            "file:///var/run/stageline/model",
            {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        ),
        ("file:///srv/./m/../llama/", "file:///srv/llama", {
            "hostPath": {"path": "/srv/llama", "type": "Directory"}}),
    ],
)  # fmt: skip
def test_all_that_reads_the_model_finds_it_in_one_place(uri, inside, volume):
    made = rendered(uri=uri, settings=HOST)
    router = made.router()["spec"]["template"]
    for pod, name in ((made.stage(), "worker"), (made.profile(), "profile"), (router, "router")):
        mounts = {mount["name"]: mount for mount in container(pod, name)["volumeMounts"]}
        volumes = {each.pop("name"): each for each in pod["spec"]["volumes"]}
        assert volumes["model"] == volume
        assert mounts["model"]["readOnly"]
    assert json.loads(env(made.worker())["STAGELINE_DOCUMENT"])["uri"] == inside
    assert container(made.profile(), "profile")["args"][0] == inside
    assert document(made).uri == inside


@pytest.mark.parametrize(
    ("uri", "commit", "inside"),
    [
        ("hf://a/b@main", "c0ffee", "hf://a/b@c0ffee"),
        ("hf://a/b", "c0ffee", "hf://a/b@c0ffee"),
        ("hf://a/b@main", "", "hf://a/b@main"),  # a mirror that names no commits
        ("s3://models/llama", "", "s3://models/llama"),
    ],
)
def test_all_stages_and_routers_read_what_the_profile_read(uri, commit, inside):
    made = rendered("{pipeline: {stages: 2}}", uri=uri, profile=dense(commit=commit))
    documents = [json.loads(env(made.worker(stage))["STAGELINE_DOCUMENT"]) for stage in (0, 1)]
    assert [each["uri"] for each in documents] == [inside, inside]
    assert document(made).uri == inside
    assert container(made.profile(), "profile")["args"][0] == uri
    assert not {"model", "cache"} & {each["name"] for each in made.stage()["spec"]["volumes"]}


def document(made, *kept):
    return RouterDocument.model_validate_json(made.config(*kept)["data"]["router.json"])


@pytest.mark.parametrize("uri", ["file:///", "file:////", "file://./m", "file:///a:b"])
def test_what_is_no_folder_of_a_node_is_not_mounted(uri):
    with pytest.raises(render.RenderError, match="write its whole path") as refused:
        rendered(uri=uri, settings=HOST).stage()
    assert refused.value.reason == "ModelSourceRefused"


def test_credentials_go_to_all_that_reads_the_model_and_to_nothing_else():
    made = rendered("{model: {secretName: token}}", uri="hf://a/b")
    secret = [{"secretRef": {"name": "token"}}]
    assert made.worker()["envFrom"] == secret
    assert container(made.profile(), "profile")["envFrom"] == secret
    assert container(made.router()["spec"]["template"], "router")["envFrom"] == secret
    assert "envFrom" not in rendered(uri="hf://a/b").worker()


CACHES = {
    "pvc://kept": ({"persistentVolumeClaim": {"claimName": "kept"}}, "/var/run/stageline/cache"),
    "pvc://kept/of/llama": (
        {"persistentVolumeClaim": {"claimName": "kept"}},
        "/var/run/stageline/cache/of/llama",
    ),
    "file:///var/cache": (
        {"hostPath": {"path": "/var/cache", "type": "DirectoryOrCreate"}},
        "/var/run/stageline/cache",
    ),
}


@pytest.mark.parametrize("cache", CACHES)
def test_stages_alone_have_the_cache_and_may_write_to_it(cache):
    volume, folder = CACHES[cache]
    made = rendered(f"{{model: {{cache: '{cache}'}}}}", uri="hf://a/b", settings=HOST)
    assert {"name": "cache", **volume} in made.stage()["spec"]["volumes"]
    mounts = {mount["name"]: mount for mount in made.worker()["volumeMounts"]}
    assert mounts["cache"] == {"name": "cache", "mountPath": "/var/run/stageline/cache"}
    assert made.stage()["spec"]["securityContext"]["fsGroup"] == 65532
    assert json.loads(env(made.worker())["STAGELINE_DOCUMENT"])["cache"] == folder
    kubernetes_validate.validate(made.stage(), "1.37", strict=True)
    others = [made.profile(), made.router()["spec"]["template"]]
    for pod in (*others, rendered(uri="hf://a/b").stage()):
        assert "cache" not in {volume["name"] for volume in pod["spec"]["volumes"]}
        assert "fsGroup" not in pod["spec"]["securityContext"]


def test_what_one_stage_has_differently_reaches_that_stage_alone():
    made = rendered(SPECS["everything"])
    first, last = made.stage(0), made.stage(2)
    assert first["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert last["spec"]["nodeSelector"] == {"pool": "gpu", "gpu": "a100"}
    assert "runtimeClassName" not in first["spec"]
    assert last["spec"]["runtimeClassName"] == "nvidia"
    assert first["spec"]["priorityClassName"] == last["spec"]["priorityClassName"] == "high"
    limits = [container(pod, "worker")["resources"]["limits"] for pod in (first, last)]
    assert limits == [{"memory": "8Gi"}, {"memory": "16Gi"}]
    assert {"key": "a100", "operator": "Exists"} in last["spec"]["tolerations"]
    assert {"key": "a100", "operator": "Exists"} not in first["spec"]["tolerations"]


def test_a_node_that_is_away_is_waited_for_a_minute_unless_the_spec_says_otherwise():
    waits = {
        entry["key"]: entry.get("tolerationSeconds")
        for entry in rendered(SPECS["everything"]).stage()["spec"]["tolerations"]
        if entry["key"].startswith("node.kubernetes.io/")
    }
    assert waits == {"node.kubernetes.io/unreachable": None, "node.kubernetes.io/not-ready": 60}


def test_a_router_leaves_a_node_that_is_away_as_soon_as_stages_do():
    made = rendered(SPECS["everything"])
    router = made.router()["spec"]["template"]["spec"]["tolerations"]
    assert [(entry["key"], entry["tolerationSeconds"]) for entry in router] == [
        ("node.kubernetes.io/not-ready", 60),
        ("node.kubernetes.io/unreachable", 60),
    ]


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        ("{requests: {cpu: 250m}}", "1"),
        ("{requests: {cpu: 250m}, limits: {cpu: 2500m}}", "3"),
        ("{requests: {cpu: '4'}}", "4"),
        ("{limits: {memory: 64Gi}}", None),
    ],
)
def test_a_stage_computes_with_as_many_threads_as_it_was_given_cpus(resources, threads):
    assert env(rendered(f"{{resources: {resources}}}").worker()).get("OMP_NUM_THREADS") == threads


def test_a_stage_may_drain_for_as_long_as_its_pod_may_take_to_end():
    long = "{spec: {terminationGracePeriodSeconds: 600}}"
    made = rendered(f"{{podTemplate: {long}, router: {{podTemplate: {long}}}}}")
    assert made.stage()["spec"]["terminationGracePeriodSeconds"] == 600
    assert env(made.worker())["STAGELINE_GRACE_SECONDS"] == "595"
    assert document(made).drain_seconds == 595
    assert env(rendered().worker())["STAGELINE_GRACE_SECONDS"] == "25"


def test_leaders_are_spread_over_hosts_unless_the_spec_says_otherwise():
    made = rendered("{pipeline: {stages: 2}}")
    (spread,) = made.stage(0)["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"]["matchLabels"].items() <= labels_of(made.stage(0)).items()
    assert not spread["labelSelector"]["matchLabels"].items() <= labels_of(made.stage(1)).items()
    assert made.stage(1)["spec"]["topologySpreadConstraints"] == []
    (own,) = rendered(SPECS["everything"]).stage(1)["spec"]["topologySpreadConstraints"]
    assert (own["topologyKey"], own["maxSkew"]) == ("zone", 1)
    assert own["labelSelector"]["matchLabels"].items() <= labels_of(made.stage(1)).items()


def labels_of(pod):
    return pod["metadata"]["labels"]


def test_services_and_budgets_select_the_pods_they_are_for():
    made = rendered("{pipeline: {stages: 2}, router: {replicas: 2}}")
    router = made.router()["spec"]["template"]
    stage, other = made.stage(0, index=0), made.stage(0, index=1)
    service = render.router_service(made.resource, made.deployment)["spec"]["selector"]
    headless = render.stages_service(made.resource)["spec"]["selector"]
    budget = render.budget(made.resource, made.record, made.key().pipeline)["spec"]
    assert service.items() <= labels_of(router).items()
    assert not service.items() <= labels_of(stage).items()
    assert not service.items() <= labels_of(made.profile()).items()
    assert headless.items() <= labels_of(stage).items()
    assert not headless.items() <= labels_of(router).items()
    chosen = budget["selector"]["matchLabels"].items()
    assert chosen <= labels_of(stage).items()
    assert not chosen <= labels_of(other).items()
    assert budget["minAvailable"] == 1
    assert made.router()["spec"]["selector"]["matchLabels"].items() <= labels_of(router).items()
    routers = render.router_budget(made.resource, made.deployment)
    assert routers["spec"]["minAvailable"] == 1
    single = rendered()
    assert render.router_budget(single.resource, single.deployment) is None


def test_the_router_is_told_which_pipelines_are_kept():
    made = rendered("{batching: {maxBatchSize: 4}, router: {maxQueue: 9, port: 9000}}")
    kept = [PipelineKey("aaaaaaaaaa", 1), PipelineKey(made.record.revision, 0)]
    told = document(made, *kept)
    assert [pipeline.name for pipeline in told.pipelines] == [
        names.pipeline_name("llama", key) for key in kept
    ]
    assert told.pipelines[1].leader == json.loads(
        env(made.worker())["STAGELINE_DOCUMENT"]
    )["addresses"][0]  # fmt: skip
    assert (told.max_batch_size, told.max_queue, told.model) == (4, 9, "llama")
    router = container(made.router()["spec"]["template"], "router")
    assert told.listen == "0.0.0.0:9000", "kubectl port-forward calls a pod on its loopback"
    assert router["readinessProbe"]["grpc"] == {"port": 7072, "service": "router"}
    assert told.health == "0.0.0.0:7072", "probes speak no TLS"


def test_a_document_that_changes_is_told_by_its_hash_and_restarts_no_router():
    made = rendered()
    one, two = made.config(), made.config(made.key().pipeline)
    assert render.document_hash(one) != render.document_hash(two)
    assert render.document_hash(one) == render.document_hash(made.config())
    assert "annotations" not in made.router()["spec"]["template"]["metadata"] or (
        render.DOCUMENT_HASH not in made.router()["spec"]["template"]["metadata"]["annotations"]
    )


def test_a_profile_pod_is_another_when_what_it_reads_or_runs_on_is():
    made = rendered("{replicas: 1}")
    name = made.profile()["metadata"]["name"]
    assert rendered("{replicas: 2, pipeline: {stages: 2}}").profile()["metadata"]["name"] == name
    for spec, uri in [
        ("{}", "pvc://checkpoints/other"),
        ("{model: {secretName: token}}", "pvc://checkpoints/llama"),
        ("{nodeSelector: {a: b}}", "pvc://checkpoints/llama"),
        ("{podTemplate: {spec: {imagePullSecrets: [{name: x}]}}}", "pvc://checkpoints/llama"),
        ("{image: 'worker:2'}", "pvc://checkpoints/llama"),
    ]:
        assert rendered(spec, uri=uri).profile()["metadata"]["name"] != name, spec


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ("{replicas: 5}", True),
        ("{nodeSelector: {a: b}}", True),
        ("{image: 'worker:2'}", True),
        ("{model: {secretName: token}}", False),
        ("{model: {dtype: float16}}", True),
    ],
)
def test_a_profile_stays_true_while_the_model_is_the_same(spec, same):
    subject = render.profile_subject(rendered().deployment)
    assert (render.profile_subject(rendered(spec).deployment) == subject) == same


def test_a_profile_pod_has_what_it_takes_to_start_and_nothing_that_outlives_it():
    made = rendered("""
        podTemplate:
          spec:
            imagePullSecrets: [{name: registry}]
            initContainers: [{name: warm, image: i}]
            containers:
            - {name: worker, env: [{name: HF_ENDPOINT, value: "http://mirror"}], lifecycle: {}}
            - {name: sidecar, image: i}
    """)
    profile = made.profile()["spec"]
    assert [each["name"] for each in profile["containers"]] == ["profile"]
    assert env(profile["containers"][0])["HF_ENDPOINT"] == "http://mirror"
    assert profile["imagePullSecrets"] == [{"name": "registry"}]
    assert "initContainers" not in profile
    assert {each["name"] for each in made.stage()["spec"]["containers"]} == {"worker", "sidecar"}


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("{}", "{replicas: 3}", True),
        ("{}", "{rollout: {maxSurge: 2}}", True),
        ("{}", "{batching: {maxDelay: 5ms}}", True),
        ("{}", "{router: {replicas: 3, port: 9000, image: 'r:2'}}", True),
        ("{pipeline: {stages: 2}}", "{pipeline: {partition: [3, 3]}}", True),
        ("{pipeline: {stages: 2}}",
         "{pipeline: {stages: 2}, stageOverrides: [{stages: [1], speedPercent: 101}]}", False),
        ("{}", "{router: {maxQueue: 3}}", False),
        ("{}", "{image: 'worker:2'}", False),
        ("{}", "{nodeSelector: {a: b}}", False),
        ("{}", "{tolerations: [{key: a, operator: Exists}]}", False),
        ("{}", "{podTemplate: {metadata: {labels: {a: b}}}}", False),
        ("{}", "{model: {secretName: token}}", False),
        ("{}", "{resources: {requests: {cpu: 1}}}", False),
        ("{}", "{generation: {maxSequences: 3}}", False),
    ],
)  # fmt: skip
def test_a_revision_is_another_only_when_stages_must_be_started_anew(old, new, same):
    assert (rendered(old).record.revision == rendered(new).record.revision) == same


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(["containers", "volumes", "hostname", "securityContext", "x", "$patch"]),
        any_json | st.lists(st.fixed_dictionaries({"name": st.just("worker"), "env": any_json})),
        max_size=3,
    )
)
def test_any_patch_makes_a_pod_or_a_sentence(patch):
    template = PodTemplate.model_validate({"spec": patch})
    try:
        made = patched(BASE, template, Patched("llama", "worker", "spec.podTemplate"))
    except render.RenderError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.reason == "PodTemplateRefused"
        assert "\n" not in str(refusal)
        return
    kubernetes_validate.validate(made, "1.37", strict=True)
    assert made["spec"]["hostname"] == BASE["spec"]["hostname"]


BASE = rendered().stage()


def test_rendering_changes_nothing_that_it_is_given():
    made = rendered(SPECS["everything"])
    before = yaml.safe_dump([made.resource, made.record.model_dump(mode="json")])
    made.everything()
    assert yaml.safe_dump([made.resource, made.record.model_dump(mode="json")]) == before


def mounts_of(container):
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def secrets_of(pod):
    return {v["name"]: v["secret"] for v in pod["spec"]["volumes"] if "secret" in v}


def test_a_stage_finds_its_certificate_where_its_document_says():
    made = rendered()
    worker, secret = made.worker(), secrets_of(made.stage())["tls"]
    folder = json.loads(env(worker)["STAGELINE_DOCUMENT"])["credentials"]
    assert mounts_of(worker)[folder] == {"name": "tls", "mountPath": folder, "readOnly": True}
    assert secret == {"secretName": "llama-stage-tls", "defaultMode": 0o444}, "no root reads it"


def test_probes_ask_a_port_that_speaks_no_tls():
    made = rendered("{router: {tls: {secretName: front}}}")
    router = container(made.router()["spec"]["template"], "router")
    document = json.loads(env(made.worker())["STAGELINE_DOCUMENT"])
    assert document["health"] == "$(POD_IP):7072"
    for each in (made.worker(), router):
        asked = {
            each[f"{kind}Probe"]["grpc"]["port"] for kind in ("startup", "liveness", "readiness")
        }
        assert asked == {7072}
        assert 7072 in {port["containerPort"] for port in each["ports"]}


def test_a_stage_that_speaks_plaintext_has_no_certificate():
    made = rendered("{security: {tls: Disabled}}")
    assert not secrets_of(made.stage())
    assert json.loads(env(made.worker())["STAGELINE_DOCUMENT"])["credentials"] == ""


def test_tls_is_part_of_the_revision_and_the_front_door_is_not():
    assert rendered().record.revision != rendered("{security: {tls: Disabled}}").record.revision
    front = "{router: {tls: {secretName: a}, auth: {tokenSecretName: b}}}"
    assert rendered().record.revision == rendered(front).record.revision


def test_a_router_has_a_place_for_every_secret_and_says_itself_what_is_missing():
    made = rendered("{router: {tls: {secretName: front}, auth: {tokenSecretName: clients}}}")
    template = made.router()["spec"]["template"]
    router, secrets = container(template, "router"), secrets_of(template)
    told = dict(zip(router["args"][::2], router["args"][1::2], strict=True))
    names = {"--credentials": "llama-router-tls", "--tls": "front", "--tokens": "clients"}
    for flag, name in names.items():
        mount = mounts_of(router)[told[flag]]
        assert secrets[mount["name"]] == {
            "secretName": name, "defaultMode": 0o444, "optional": True,
        }  # fmt: skip
        assert mount["readOnly"]
    (port,) = render.router_service(made.resource, made.deployment)["spec"]["ports"]
    assert port["appProtocol"] == "https"


def test_plaintext_routers_have_a_place_for_their_certificate_too():
    """One of another revision may ask for it, and no router restarts for that."""
    template = rendered("{security: {tls: Disabled}}").router()["spec"]["template"]
    assert template == rendered().router()["spec"]["template"]
    assert set(secrets_of(template)) == {"tls"}
