"""All manifests that must be refused, by when it is known.

WRONG is refused by the models and, but for what says otherwise, by the API server; LATER by the
plan or when pods are made of it, with a reason for the condition; CHANGES by the API server alone,
as only it knows what was before.
"""

from support import wrong_model, wrong_pipeline, wrong_pods
from support.wrong import Change, Later

WRONG = (*wrong_model.WRONG, *wrong_pipeline.WRONG, *wrong_pods.WRONG)

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
