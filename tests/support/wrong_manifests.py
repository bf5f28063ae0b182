"""Manifests that must be refused, each with what is wrong and the words that must say so.

A change is laid over BASE as a merge patch. WRONG is refused by the models and, but for what says
otherwise, by the API server; LATER by the plan or when pods are made of it, with a reason for the
condition; CHANGES by the API server alone, as only it knows what was before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

BASE = """\
apiVersion: stageline.dev/v1alpha1
kind: PipelineDeployment
metadata: {name: llama}
spec:
  model: {uri: "hf://meta-llama/Llama-3.1-8B@main"}
"""


@dataclass(frozen=True)
class Wrong:
    """A manifest that nobody may take."""

    what: str
    change: str
    words: str
    by_server: bool = True
    """Whether the API server refuses it; the operator does, by a condition, what it lets in."""

    @property
    def field(self) -> str:
        """The field that every refusal must name, as far as all name it alike."""
        (name,) = re.findall(r"^(?:a name in )?(?:metadata\.)?([\w.]+)", self.words)
        return re.sub(r"\.(limits|requests|nodeSelector|labels)\.\w+$", r".\1", name)


@dataclass(frozen=True)
class Later:
    """A manifest that looks right until the model and the cluster are known."""

    what: str
    change: str
    reason: str
    words: str


@dataclass(frozen=True)
class Change:
    """Two manifests, of which the second may not follow the first."""

    what: str
    before: str
    after: str
    words: str


def manifest(*changes: str) -> dict[str, Any]:
    """BASE with `changes` laid over it."""
    made = yaml.safe_load(BASE)
    for change in changes:
        made = _merged(made, yaml.safe_load(change))
    assert isinstance(made, dict)
    return made


def _merged(base: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    made = dict(base) if isinstance(base, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = _merged(made.get(name), value)
    return made


WRONG = (
    Wrong("a kind of somebody else's", "kind: Deployment", "kind must be PipelineDeployment"),
    Wrong("no spec", "spec: null", "spec is missing: what is asked for"),
    Wrong("a spec that is a list", "spec: []", "spec must be a mapping of fields"),
    Wrong("a spec that is text", "spec: serve llama please", "spec must be a mapping of fields"),
    Wrong(
        "an unknown field of the spec",
        "spec: {replica: 2}",
        "spec.replica is not a field of PipelineDeployment: did you mean spec.replicas?",
    ),
    Wrong(
        "an unknown field with a capital",
        "spec: {Replicas: 2}",
        "spec.Replicas is not a field of PipelineDeployment: did you mean spec.replicas?",
    ),
    Wrong(
        "an unknown field deep inside",
        "spec: {pipeline: {stage: 2}}",
        "spec.pipeline.stage is not a field of PipelineDeployment: did you mean",
    ),
    Wrong(
        "a field in the wrong part",
        "spec: {stages: 2}",
        "spec.stages is not a field of PipelineDeployment: did you mean spec.stageOverrides?",
    ),
    Wrong(
        "an unknown field in an entry of a list",
        "spec: {stageOverrides: [{stages: [0], speed: 50}]}",
        "spec.stageOverrides[0].speed is not a field of PipelineDeployment: spec.stageOverrides[0]",
    ),
    Wrong(
        "a typo in the rollout",
        "spec: {rollout: {maxSurges: 1}}",
        "spec.rollout.maxSurges is not a field of PipelineDeployment: did you mean",
    ),
    Wrong(
        "a name with capitals",
        "metadata: {name: Llama}",
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong(
        "a name with a dot",
        "metadata: {name: llama.v1}",
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong(
        "a name with an underscore",
        "metadata: {name: my_llama}",
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong(
        "a name that ends with a dash",
        "metadata: {name: llama-}",
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong(
        "a name that begins with a dash",
        "metadata: {name: -llama}",
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong(
        "a name of 64 characters",
        "metadata: {name: " + "a" * 64 + "}",
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong(
        "a name that leaves its folder",
        "metadata: {name: ../../etc/passwd}",
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong(
        "a name that is a template",
        "metadata: {name: '{{ .Release.Name }}'}",
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong(
        "a name that is a shell command",
        "metadata: {name: 'a; rm -rf /'}",
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong(
        "a name with a line break",
        'metadata: {name: "llama\\nkind: Secret"}',
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong(
        "an empty name",
        "metadata: {name: ''}",
        "metadata.name must be lower case letters, digits and '-', start and end with a letter or",
    ),
    Wrong("a name that is a number", "metadata: {name: 123}", "metadata.name must be text"),
    Wrong("no model", "spec: {model: null}", "spec.model is missing: which model is served"),
    Wrong(
        "a model without an address",
        "spec: {model: {uri: null}}",
        "spec.model.uri is missing: where the checkpoint is: hf://owner/model@revision,",
    ),
    Wrong(
        "a model that is text",
        "spec: {model: 'hf://a/b'}",
        "spec.model must be a mapping of fields",
    ),
    Wrong("an empty address", "spec: {model: {uri: ''}}", "spec.model.uri has no scheme"),
    Wrong(
        "an address without a scheme",
        "spec: {model: {uri: meta-llama/Llama-3.1-8B}}",
        "spec.model.uri has no scheme",
    ),
    Wrong(
        "an address of the web",
        "spec: {model: {uri: 'https://huggingface.co/a/b'}}",
        "spec.model.uri has the unknown scheme https://; use hf://, pvc://, s3:// or file://",
    ),
    Wrong(
        "an address with one slash",
        "spec: {model: {uri: 'hf:/a/b'}}",
        "spec.model.uri has no scheme",
    ),
    Wrong(
        "a repository with three parts",
        "spec: {model: {uri: 'hf://a/b/c'}}",
        "spec.model.uri is not well formed",
    ),
    Wrong(
        "a repository with a space",
        "spec: {model: {uri: 'hf://a/b c'}}",
        "spec.model.uri is not well formed",
    ),
    Wrong(
        "a repository with a shell in it",
        "spec: {model: {uri: 'hf://a/$(rm -rf /)'}}",
        "spec.model.uri is not well formed",
    ),
    Wrong(
        "a repository with a line break",
        'spec: {model: {uri: "hf://a/b\\n--trust-remote-code"}}',
        "spec.model.uri is not well formed",
    ),
    Wrong(
        "an empty revision",
        "spec: {model: {uri: 'hf://a/b@'}}",
        "spec.model.uri is not well formed",
    ),
    Wrong(
        "a claim with capitals",
        "spec: {model: {uri: 'pvc://Models/llama'}}",
        "spec.model.uri is not well formed",
    ),
    Wrong(
        "a claim that is left again",
        "spec: {model: {uri: 'pvc://models/../secrets'}}",
        "spec.model.uri is not well formed",
    ),
    Wrong(
        "a claim without a name",
        "spec: {model: {uri: 'pvc:///llama'}}",
        "spec.model.uri is not well formed",
    ),
    Wrong(
        "a bucket with capitals",
        "spec: {model: {uri: 's3://My_Bucket/llama'}}",
        "spec.model.uri is not well formed",
    ),
    Wrong(
        "a file that is no path",
        "spec: {model: {uri: 'file://models'}}",
        "spec.model.uri is not well formed",
    ),
    Wrong(
        "an address of two thousand characters",
        "spec: {model: {uri: 'hf://a/" + "b" * 2000 + "'}}",
        "spec.model.uri must have at most 1024 characters",
    ),
    Wrong("an address that is a number", "spec: {model: {uri: 7}}", "spec.model.uri must be text"),
    Wrong(
        "an unknown dtype",
        "spec: {model: {dtype: int4}}",
        "spec.model.dtype must be auto, float32, bfloat16 or float16",
    ),
    Wrong(
        "a dtype with a capital",
        "spec: {model: {dtype: BFloat16}}",
        "spec.model.dtype must be auto, float32, bfloat16 or float16",
    ),
    Wrong(
        "a length of zero",
        "spec: {model: {maxModelLen: 0}}",
        "spec.model.maxModelLen must be at least 1",
    ),
    Wrong(
        "a negative length",
        "spec: {model: {maxModelLen: -1}}",
        "spec.model.maxModelLen must be at least 1",
    ),
    Wrong(
        "a length as text",
        "spec: {model: {maxModelLen: '8192'}}",
        "spec.model.maxModelLen must be a whole number",
    ),
    Wrong(
        "a length with a fraction",
        "spec: {model: {maxModelLen: 81.92}}",
        "spec.model.maxModelLen must be a whole number",
    ),
    Wrong(
        "a length beyond 32 bits",
        "spec: {model: {maxModelLen: 99999999999}}",
        "spec.model.maxModelLen must be at most 2147483647",
    ),
    Wrong(
        "a cache in a bucket",
        "spec: {model: {uri: 'hf://a/b', cache: 's3://bucket'}}",
        "spec.model.cache must be a place for a cache: write pvc://claim/folder or file:///folder",
    ),
    Wrong(
        "a cache that climbs out of its claim",
        "spec: {model: {uri: 'hf://a/b', cache: 'pvc://claim/../x'}}",
        "spec.model.cache must be a place for a cache",
    ),
    Wrong(
        "a cache for what is on a volume",
        "spec: {model: {uri: 'pvc://claim', cache: 'pvc://cache'}}",
        "spec.model.cache keeps what is downloaded of hf:// and s3://",
    ),
    Wrong(
        "a Secret with a slash",
        "spec: {model: {secretName: default/token}}",
        "spec.model.secretName must be the name of an object: lower case letters, digits, '-' and",
    ),
    Wrong(
        "a Secret that is an object",
        "spec: {model: {secretName: {name: token}}}",
        "spec.model.secretName must be text",
    ),
    Wrong(
        "a token in the spec",
        "spec: {model: {token: hf_abc}}",
        "spec.model.token is not a field of PipelineDeployment: spec.model has uri, dtype,",
    ),
    Wrong("no stages", "spec: {pipeline: {stages: 0}}", "spec.pipeline.stages must be at least 1"),
    Wrong(
        "negative stages",
        "spec: {pipeline: {stages: -3}}",
        "spec.pipeline.stages must be at least 1",
    ),
    Wrong(
        "a thousand stages",
        "spec: {pipeline: {stages: 1000}}",
        "spec.pipeline.stages must be at most 256",
    ),
    Wrong(
        "stages as text",
        "spec: {pipeline: {stages: four}}",
        "spec.pipeline.stages must be a whole number",
    ),
    Wrong(
        "stages that are true",
        "spec: {pipeline: {stages: true}}",
        "spec.pipeline.stages must be a whole number",
    ),
    Wrong(
        "an empty partition",
        "spec: {pipeline: {partition: []}}",
        "spec.pipeline.partition is an empty list: give it entries, or leave it out",
    ),
    Wrong(
        "a partition with an empty stage",
        "spec: {pipeline: {partition: [3, 0, 3]}}",
        "spec.pipeline.partition[1] must be at least 1",
    ),
    Wrong(
        "a partition as text",
        "spec: {pipeline: {partition: '3,3'}}",
        "spec.pipeline.partition must be a list",
    ),
    Wrong(
        "a partition of halves",
        "spec: {pipeline: {partition: [1.5, 1.5]}}",
        "spec.pipeline.partition[0] must be a whole number",
    ),
    Wrong(
        "a partition of other length than stages",
        "spec: {pipeline: {stages: 3, partition: [3, 3]}}",
        "spec.pipeline.partition [3, 3] has 2 stages but spec.pipeline.stages is 3: leave one of",
    ),
    Wrong(
        "an unknown transport",
        "spec: {pipeline: {transport: rdma}}",
        "spec.pipeline.transport must be auto, collective, socket or grpc",
    ),
    Wrong(
        "an unknown device",
        "spec: {pipeline: {device: tpu}}",
        "spec.pipeline.device must be auto, cpu or cuda",
    ),
    Wrong(
        "a numbered device",
        "spec: {pipeline: {device: 'cuda:0'}}",
        "spec.pipeline.device must be auto, cpu or cuda",
    ),
    Wrong("negative replicas", "spec: {replicas: -1}", "spec.replicas must be at least 0"),
    Wrong("a million replicas", "spec: {replicas: 1000000}", "spec.replicas must be at most 1000"),
    Wrong("replicas as text", "spec: {replicas: two}", "spec.replicas must be a whole number"),
    Wrong(
        "replicas with a fraction", "spec: {replicas: 1.5}", "spec.replicas must be a whole number"
    ),
    Wrong(
        "a rollout that can do nothing",
        "spec: {rollout: {maxSurge: 0, maxUnavailable: 0}}",
        "spec.rollout.maxSurge and spec.rollout.maxUnavailable are both 0, so no pipeline could",
    ),
    Wrong(
        "a surge in percent",
        "spec: {rollout: {maxSurge: 25%}}",
        "spec.rollout.maxSurge must be a whole number",
    ),
    Wrong(
        "a negative surge",
        "spec: {rollout: {maxSurge: -1}}",
        "spec.rollout.maxSurge must be at least 0",
    ),
    Wrong(
        "a deadline without a unit",
        "spec: {rollout: {progressDeadline: '600'}}",
        "spec.rollout.progressDeadline is not a duration",
    ),
    Wrong(
        "a deadline as a number",
        "spec: {rollout: {progressDeadline: 600}}",
        "spec.rollout.progressDeadline is not a duration",
    ),
    Wrong(
        "a deadline in days",
        "spec: {rollout: {progressDeadline: 1d}}",
        "spec.rollout.progressDeadline is not a duration",
    ),
    Wrong(
        "a limit without a number",
        "spec: {resources: {limits: {memory: lots}}}",
        "spec.resources.limits.memory is not a Kubernetes quantity",
    ),
    Wrong(
        "a limit in GB",
        "spec: {resources: {limits: {memory: 80GB}}}",
        "spec.resources.limits.memory is not a Kubernetes quantity",
    ),
    Wrong(
        "a negative limit",
        "spec: {resources: {limits: {memory: -1Gi}}}",
        "spec.resources.limits.memory is not a Kubernetes quantity",
    ),
    Wrong(
        "a negative limit as a number",
        "spec: {resources: {limits: {cpu: -1}}}",
        "spec.resources.limits.cpu is not a Kubernetes quantity",
    ),
    Wrong(
        "a resource without its domain",
        "spec: {resources: {limits: {gpu: 1}}}",
        "spec.resources has gpu, which is no resource of Kubernetes: write cpu, memory,",
    ),
    Wrong(
        "a resource with a capital",
        "spec: {resources: {requests: {CPU: 1}}}",
        "spec.resources has CPU, which is no resource of Kubernetes: write cpu, memory,",
    ),
    Wrong(
        "half a device",
        "spec: {resources: {limits: {nvidia.com/gpu: 500m}}}",
        "spec.resources has 500m of nvidia.com/gpu, but devices are given out whole: write a whole",
    ),
    Wrong(
        "a request above its limit",
        "spec: {resources: {limits: {memory: 1Gi}, requests: {memory: 2Gi}}}",
        "spec.resources requests 2Gi of memory but limits it to 1Gi: lower the request, or raise",
    ),
    Wrong(
        "a router's request above its limit",
        "spec: {router: {resources: {limits: {cpu: '1'}, requests: {cpu: 1500m}}}}",
        "spec.router.resources requests 1500m of cpu but limits it to 1: lower the request, or",
    ),
    Wrong(
        "limits as a list",
        "spec: {resources: {limits: [cpu]}}",
        "spec.resources.limits must be a mapping of names to values",
    ),
    Wrong(
        "a limit that is a mapping",
        "spec: {resources: {limits: {cpu: {value: 1}}}}",
        "spec.resources.limits.cpu must be text",
    ),
    Wrong(
        "device memory in words",
        "spec: {resources: {deviceMemory: 80 gigabytes}}",
        "spec.resources.deviceMemory is not a Kubernetes quantity",
    ),
    Wrong(
        "an override of no stage",
        "spec: {stageOverrides: [{stages: []}]}",
        "spec.stageOverrides[0].stages is an empty list: give it entries, or leave it out",
    ),
    Wrong(
        "an override without stages",
        "spec: {stageOverrides: [{nodeSelector: {gpu: a100}}]}",
        "spec.stageOverrides[0].stages is missing: numbers of the stages, from 0",
    ),
    Wrong(
        "an override of a stage that is not there",
        "spec: {pipeline: {stages: 2}, stageOverrides: [{stages: [2]}]}",
        "spec.stageOverrides names stage 2 but the pipeline has 2 stages, 0 to 1: use one of",
    ),
    Wrong(
        "an override beyond the partition",
        "spec: {pipeline: {partition: [3, 3]}, stageOverrides: [{stages: [5]}]}",
        "spec.stageOverrides names stage 5 but the pipeline has 2 stages, 0 to 1: use one of",
    ),
    Wrong(
        "an override of a negative stage",
        "spec: {stageOverrides: [{stages: [-1]}]}",
        "spec.stageOverrides[0].stages[0] must be at least 0",
    ),
    Wrong(
        "a stage in two overrides",
        "spec: {stageOverrides: [{stages: [0, 1]}, {stages: [1]}]}",
        "spec.stageOverrides names stage 1 more than once: put all that is different for it into",
    ),
    Wrong(
        "a stage twice in one override",
        "spec: {stageOverrides: [{stages: [1, 1]}]}",
        "spec.stageOverrides names stage 1 more than once: put all that is different for it into",
    ),
    Wrong(
        "overrides as a mapping",
        "spec: {stageOverrides: {stages: [0]}}",
        "spec.stageOverrides must be a list",
    ),
    Wrong(
        "a stage of no speed",
        "spec: {stageOverrides: [{stages: [0], speedPercent: 0}]}",
        "spec.stageOverrides[0].speedPercent must be at least 1",
    ),
    Wrong(
        "an override's request above its limit",
        "spec: {stageOverrides: [{stages: [0], resources: {limits: {cpu: 1}, requests: {cpu: "
        "2}}}]}",
        "spec.stageOverrides[0].resources requests 2 of cpu but limits it to 1: lower the request,",
    ),
    Wrong(
        "a node's label with a space",
        "spec: {nodeSelector: {gpu: 'a 100'}}",
        "spec.nodeSelector.gpu must be a label's value: letters, digits, '-', '_' and '.', at most",
    ),
    Wrong(
        "a node's label that is a number",
        "spec: {nodeSelector: {gpu: 100}}",
        "spec.nodeSelector.gpu must be text",
    ),
    Wrong(
        "a node's label that is true",
        "spec: {nodeSelector: {gpu: true}}",
        "spec.nodeSelector.gpu must be text",
    ),
    Wrong(
        "a node's label with a bad name",
        "spec: {nodeSelector: {'gpu type': a100}}",
        "a name in spec.nodeSelector must be a label's name, for example gpu or example.com/gpu:",
        by_server=False,
    ),
    Wrong(
        "a node selector as a list",
        "spec: {nodeSelector: [gpu]}",
        "spec.nodeSelector must be a mapping of names to values",
    ),
    Wrong(
        "a toleration with an unknown effect",
        "spec: {tolerations: [{key: gpu, effect: NoRun}]}",
        "spec.tolerations[0].effect must be NoSchedule, PreferNoSchedule or NoExecute",
    ),
    Wrong(
        "a toleration without a key",
        "spec: {tolerations: [{effect: NoSchedule}]}",
        "spec.tolerations[0] has no key: give it one, or operator Exists to tolerate every taint",
    ),
    Wrong(
        "a toleration of any value and one",
        "spec: {tolerations: [{key: gpu, operator: Exists, value: a100}]}",
        "spec.tolerations[0] has operator Exists and value a100: leave one of them out",
    ),
    Wrong(
        "a toleration for a while of a taint that evicts nobody",
        "spec: {tolerations: [{key: gpu, operator: Exists, effect: NoSchedule, tolerationSeconds: "
        "5}]}",
        "spec.tolerations[0] has tolerationSeconds, which only effect NoExecute has: set it, or",
    ),
    Wrong(
        "a spread over nothing",
        "spec: {topologySpreadConstraints: [{maxSkew: 1, whenUnsatisfiable: ScheduleAnyway}]}",
        "spec.topologySpreadConstraints[0].topologyKey is missing: label of nodes; those with the",
    ),
    Wrong(
        "a spread with an unknown policy",
        "spec: {topologySpreadConstraints: [{topologyKey: zone, whenUnsatisfiable: Never}]}",
        "spec.topologySpreadConstraints[0].whenUnsatisfiable must be DoNotSchedule or",
    ),
    Wrong(
        "a spread of no skew",
        "spec: {topologySpreadConstraints: [{topologyKey: zone, whenUnsatisfiable: DoNotSchedule, "
        "maxSkew: 0}]}",
        "spec.topologySpreadConstraints[0].maxSkew must be at least 1",
    ),
    Wrong(
        "a spread that counts by a field that is none",
        "spec: {topologySpreadConstraints: [{topologyKey: zone, whenUnsatisfiable: DoNotSchedule, "
        "labelSelector: {labels: {a: b}}}]}",
        "spec.topologySpreadConstraints[0].labelSelector.labels is not a field",
    ),
    Wrong(
        "a pod template that is text",
        "spec: {podTemplate: privileged}",
        "spec.podTemplate must be a mapping of fields",
    ),
    Wrong(
        "a pod template with a name",
        "spec: {podTemplate: {metadata: {name: mine}}}",
        "spec.podTemplate.metadata.name is not a field of PipelineDeployment:",
    ),
    Wrong(
        "a pod template with owners",
        "spec: {podTemplate: {metadata: {ownerReferences: []}}}",
        "spec.podTemplate.metadata.ownerReferences is not a field of PipelineDeployment:",
    ),
    Wrong(
        "a pod template of another kind",
        "spec: {podTemplate: {kind: Job}}",
        "spec.podTemplate.kind is not a field of PipelineDeployment: spec.podTemplate has",
    ),
    Wrong(
        "a pod template whose spec is a list",
        "spec: {podTemplate: {spec: []}}",
        "spec.podTemplate.spec must be a mapping of names to values",
    ),
    Wrong(
        "a pod template's label with a line break",
        'spec: {podTemplate: {metadata: {labels: {a: "b\\nc"}}}}',
        "spec.podTemplate.metadata.labels.a must be a label's value: letters, digits, '-', '_' and",
    ),
    Wrong(
        "an image with a space",
        "spec: {image: 'worker latest'}",
        "spec.image must be an image, for example registry.example.com/stageline-worker:1.0",
    ),
    Wrong(
        "an empty image",
        "spec: {image: ''}",
        "spec.image must be an image, for example registry.example.com/stageline-worker:1.0",
    ),
    Wrong(
        "an image that is an option",
        "spec: {image: --privileged}",
        "spec.image must be an image, for example registry.example.com/stageline-worker:1.0",
    ),
    Wrong(
        "an image of a thousand characters",
        "spec: {image: " + "a" * 1000 + "}",
        "spec.image must be an image, for example registry.example.com/stageline-worker:1.0",
    ),
    Wrong("port 0", "spec: {router: {port: 0}}", "spec.router.port must be at least 1"),
    Wrong(
        "a port beyond the last",
        "spec: {router: {port: 65536}}",
        "spec.router.port must be at most 65535",
    ),
    Wrong(
        "a port as text",
        "spec: {router: {port: '8001'}}",
        "spec.router.port must be a whole number",
    ),
    Wrong("no router", "spec: {router: {replicas: 0}}", "spec.router.replicas must be at least 1"),
    Wrong(
        "a queue for nobody",
        "spec: {router: {maxQueue: 0}}",
        "spec.router.maxQueue must be at least 1",
    ),
    Wrong(
        "a batch of no rows",
        "spec: {batching: {maxBatchSize: 0}}",
        "spec.batching.maxBatchSize must be at least 1",
    ),
    Wrong(
        "a delay without a unit",
        "spec: {batching: {maxDelay: 2}}",
        "spec.batching.maxDelay is not a duration",
    ),
    Wrong(
        "a negative delay",
        "spec: {batching: {maxDelay: -2ms}}",
        "spec.batching.maxDelay is not a duration",
    ),
    Wrong(
        "a delay in words",
        "spec: {batching: {maxDelay: soon}}",
        "spec.batching.maxDelay is not a duration",
    ),
    Wrong(
        "no sequences",
        "spec: {generation: {maxSequences: 0}}",
        "spec.generation.maxSequences must be at least 1",
    ),
    Wrong(
        "a chunk of a fraction",
        "spec: {generation: {prefillChunk: 0.5}}",
        "spec.generation.prefillChunk must be a whole number",
    ),
    Wrong(
        "batching that is off", "spec: {batching: off}", "spec.batching must be a mapping of fields"
    ),
)

LATER = (
    Later(
        "a partition of fewer layers than there are",
        "spec: {pipeline: {partition: [2, 2]}}",
        "PlanRefused",
        "covers 4 layers but llama has 6: make its numbers add up to 6",
    ),
    Later(
        "more stages than layers",
        "spec: {pipeline: {stages: 7}}",
        "PlanRefused",
        "llama has 6 layers, too few for 7 stages",
    ),
    Later(
        "an override of a stage that the plan cannot reach",
        "spec: {stageOverrides: [{stages: [9], speedPercent: 50}]}",
        "PlanRefused",
        "spec.stageOverrides names stage 9 but the pipeline has at most 6 stages",
    ),
    Later(
        "a length that the model was not made for",
        "spec: {model: {maxModelLen: 9000}}",
        "PlanRefused",
        "lower it to 8192 or less",
    ),
    Later(
        "stages that are too small",
        "spec: {pipeline: {stages: 2}, resources: {limits: {memory: 600Mi}}}",
        "PlanRefused",
        "but its pods offer 600 MiB",
    ),
    Later(
        "a transport that is not there",
        "spec: {pipeline: {transport: collective}}",
        "NotInThisVersion",
        "spec.pipeline.transport collective of llama is not in this version: use auto, socket "
        "or grpc",
    ),
    Later(
        "a folder of the node",
        "spec: {model: {uri: 'file:///models/llama'}}",
        "ModelSourceRefused",
        "this operator mounts no folder of a node, use pvc://, hf:// or s3://",
    ),
    Later(
        "a cache on nodes that may not be mounted",
        "spec: {model: {uri: 'hf://meta-llama/Llama-3.1-8B', cache: 'file:///var/cache'}}",
        "ModelSourceRefused",
        "spec.model.cache file:///var/cache of llama: this operator mounts no folder of a node",
    ),
    Later(
        "a field that no pod has",
        "spec: {podTemplate: {spec: {priorityClass: high}}}",
        "PodTemplateRefused",
        "spec.podTemplate of llama makes no valid pod: spec: Additional properties are not "
        "allowed ('priorityClass' was unexpected)",
    ),
    Later(
        "a field of the wrong type",
        "spec: {podTemplate: {spec: {hostNetwork: 'yes'}}}",
        "PodTemplateRefused",
        "spec.hostNetwork: 'yes' is not of type 'boolean'",
    ),
    Later(
        "a container without a name",
        "spec: {podTemplate: {spec: {containers: [{image: x}]}}}",
        "PodTemplateRefused",
        "spec.containers has an entry without name, by which they are merged",
    ),
    Later(
        "a patch that is no patch",
        "spec: {podTemplate: {spec: {$setElementOrder/containers: [{name: worker}]}}}",
        "PodTemplateRefused",
        "use $patch: delete, $patch: replace or $retainKeys",
    ),
    Later(
        "another host name",
        "spec: {podTemplate: {spec: {hostname: other}}}",
        "PodTemplateRefused",
        "changes spec.hostname, which the operator relies on: take that out of it",
    ),
    Later(
        "no container",
        "spec: {podTemplate: {spec: {containers: [{name: worker, $patch: delete}]}}}",
        "PodTemplateRefused",
        "which the operator relies on",
    ),
    Later(
        "another command",
        "spec: {podTemplate: {spec: {containers: [{name: worker, command: [sh]}]}}}",
        "PodTemplateRefused",
        "changes command of container worker, which the operator relies on",
    ),
    Later(
        "another document",
        "spec: {podTemplate: {spec: {containers: [{name: worker, env: [{name: STAGELINE_DOCUMENT, "
        "value: '{}'}]}]}}}",
        "PodTemplateRefused",
        "changes STAGELINE_DOCUMENT of container worker, which the operator relies on",
    ),
    Later(
        "another address",
        "spec: {podTemplate: {spec: {containers: [{name: worker, env: [{name: POD_IP, $patch: "
        "delete}]}]}}}",
        "PodTemplateRefused",
        "changes POD_IP of container worker",
    ),
    Later(
        "another owner by label",
        "spec: {podTemplate: {metadata: {labels: {stageline.dev/deployment: other}}}}",
        "PodTemplateRefused",
        "changes label stageline.dev/deployment, which the operator relies on",
    ),
    Later(
        "a pod that is not started again",
        "spec: {podTemplate: {spec: {restartPolicy: Never}}}",
        "PodTemplateRefused",
        "changes spec.restartPolicy",
    ),
    Later(
        "a command for one stage",
        "spec: {pipeline: {stages: 2}, stageOverrides: [{stages: [1], podTemplate: {spec: "
        "{subdomain: x}}}]}",
        "PodTemplateRefused",
        "podTemplate in spec.stageOverrides of 1 of llama changes spec.subdomain",
    ),
)

CHANGES = (
    Change(
        "another repository",
        "spec: {replicas: 1}",
        "spec: {model: {uri: 'hf://meta-llama/Llama-3.1-70B@main'}}",
        "may change its @revision but not its repository, hf://meta-llama/Llama-3.1-8B: make "
        "another PipelineDeployment",
    ),
    Change(
        "another owner's repository",
        "spec: {replicas: 1}",
        "spec: {model: {uri: 'hf://somebody/Llama-3.1-8B@main'}}",
        "may change its @revision but not its repository",
    ),
    Change(
        "a repository that begins alike",
        "spec: {model: {uri: 'hf://a/llama'}}",
        "spec: {model: {uri: 'hf://a/llama2'}}",
        "may change its @revision but not its repository, hf://a/llama:",
    ),
)
