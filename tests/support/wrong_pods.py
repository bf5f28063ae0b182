"""Manifests that are wrong in where and how pods run, in the router, or in batching."""

from support.wrong import Wrong

WRONG = (
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
