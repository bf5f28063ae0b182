"""Manifests that are wrong in stages, replicas, rollout, resources or overrides."""

from support.wrong import Wrong

WRONG = (
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
)
