"""Manifests that are wrong in their shape, their name or their model."""

from support.wrong import Wrong

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
)
