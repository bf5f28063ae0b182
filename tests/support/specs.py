"""Specs of which all or little is asked."""

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
