from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_STATE_UNSPECIFIED: _ClassVar[WorkerState]
    STARTING: _ClassVar[WorkerState]
    LOADING: _ClassVar[WorkerState]
    LOADED: _ClassVar[WorkerState]
    SERVING: _ClassVar[WorkerState]
    DRAINING: _ClassVar[WorkerState]
    FAILED: _ClassVar[WorkerState]

class SpanKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPAN_KIND_UNSPECIFIED: _ClassVar[SpanKind]
    SPAN_INFER: _ClassVar[SpanKind]
    SPAN_PREFILL: _ClassVar[SpanKind]
    SPAN_DECODE: _ClassVar[SpanKind]
    SPAN_MIXED: _ClassVar[SpanKind]

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_UNSPECIFIED: _ClassVar[Task]
    INFER: _ClassVar[Task]
    GENERATE: _ClassVar[Task]

class PipelineState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PIPELINE_STATE_UNSPECIFIED: _ClassVar[PipelineState]
    WAITING: _ClassVar[PipelineState]
    CONNECTING: _ClassVar[PipelineState]
    READY: _ClassVar[PipelineState]
    PIPELINE_DRAINING: _ClassVar[PipelineState]
WORKER_STATE_UNSPECIFIED: WorkerState
STARTING: WorkerState
LOADING: WorkerState
LOADED: WorkerState
SERVING: WorkerState
DRAINING: WorkerState
FAILED: WorkerState
SPAN_KIND_UNSPECIFIED: SpanKind
SPAN_INFER: SpanKind
SPAN_PREFILL: SpanKind
SPAN_DECODE: SpanKind
SPAN_MIXED: SpanKind
TASK_UNSPECIFIED: Task
INFER: Task
GENERATE: Task
PIPELINE_STATE_UNSPECIFIED: PipelineState
WAITING: PipelineState
CONNECTING: PipelineState
READY: PipelineState
PIPELINE_DRAINING: PipelineState

class WorkerMessage(_message.Message):
    __slots__ = ("report", "ready", "broken", "trace")
    REPORT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    report: WorkerReport
    ready: SessionReady
    broken: LinkBroken
    trace: StageTrace
    def __init__(self, report: _Optional[_Union[WorkerReport, _Mapping]] = ..., ready: _Optional[_Union[SessionReady, _Mapping]] = ..., broken: _Optional[_Union[LinkBroken, _Mapping]] = ..., trace: _Optional[_Union[StageTrace, _Mapping]] = ...) -> None: ...

class LeaderMessage(_message.Message):
    __slots__ = ("open", "close", "trace")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    open: OpenSession
    close: CloseSession
    trace: AskTrace
    def __init__(self, open: _Optional[_Union[OpenSession, _Mapping]] = ..., close: _Optional[_Union[CloseSession, _Mapping]] = ..., trace: _Optional[_Union[AskTrace, _Mapping]] = ...) -> None: ...

class WorkerReport(_message.Message):
    __slots__ = ("stage", "incarnation", "plan_hash", "revision", "host", "state", "first_layer", "end_layer", "loaded_bytes", "total_bytes", "loads", "device", "dtype", "transport", "session", "microbatches", "compute_seconds", "hop_seconds", "last_sequence", "refused_frames", "error", "busy_seconds", "waiting_seconds", "transport_note")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FIRST_LAYER_FIELD_NUMBER: _ClassVar[int]
    END_LAYER_FIELD_NUMBER: _ClassVar[int]
    LOADED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MICROBATCHES_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HOP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FRAMES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    BUSY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAITING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_NOTE_FIELD_NUMBER: _ClassVar[int]
    stage: int
    incarnation: int
    plan_hash: str
    revision: str
    host: str
    state: WorkerState
    first_layer: int
    end_layer: int
    loaded_bytes: int
    total_bytes: int
    loads: int
    device: str
    dtype: str
    transport: str
    session: int
    microbatches: int
    compute_seconds: float
    hop_seconds: float
    last_sequence: int
    refused_frames: int
    error: str
    busy_seconds: float
    waiting_seconds: float
    transport_note: str
    def __init__(self, stage: _Optional[int] = ..., incarnation: _Optional[int] = ..., plan_hash: _Optional[str] = ..., revision: _Optional[str] = ..., host: _Optional[str] = ..., state: _Optional[_Union[WorkerState, str]] = ..., first_layer: _Optional[int] = ..., end_layer: _Optional[int] = ..., loaded_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., loads: _Optional[int] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., transport: _Optional[str] = ..., session: _Optional[int] = ..., microbatches: _Optional[int] = ..., compute_seconds: _Optional[float] = ..., hop_seconds: _Optional[float] = ..., last_sequence: _Optional[int] = ..., refused_frames: _Optional[int] = ..., error: _Optional[str] = ..., busy_seconds: _Optional[float] = ..., waiting_seconds: _Optional[float] = ..., transport_note: _Optional[str] = ...) -> None: ...

class OpenSession(_message.Message):
    __slots__ = ("session", "plan_hash", "revision", "incarnations")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INCARNATIONS_FIELD_NUMBER: _ClassVar[int]
    session: int
    plan_hash: str
    revision: str
    incarnations: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session: _Optional[int] = ..., plan_hash: _Optional[str] = ..., revision: _Optional[str] = ..., incarnations: _Optional[_Iterable[int]] = ...) -> None: ...

class CloseSession(_message.Message):
    __slots__ = ("session", "reason")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session: int
    reason: str
    def __init__(self, session: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class SessionReady(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: int
    def __init__(self, session: _Optional[int] = ...) -> None: ...

class LinkBroken(_message.Message):
    __slots__ = ("session", "stage", "reason")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session: int
    stage: int
    reason: str
    def __init__(self, session: _Optional[int] = ..., stage: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class AskTrace(_message.Message):
    __slots__ = ("id", "spans")
    ID_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    id: int
    spans: int
    def __init__(self, id: _Optional[int] = ..., spans: _Optional[int] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("kind", "session", "sequence", "tokens", "sequences", "free", "begin", "end", "sent", "idle")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    FREE_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    kind: SpanKind
    session: int
    sequence: int
    tokens: int
    sequences: int
    free: float
    begin: float
    end: float
    sent: float
    idle: bool
    def __init__(self, kind: _Optional[_Union[SpanKind, str]] = ..., session: _Optional[int] = ..., sequence: _Optional[int] = ..., tokens: _Optional[int] = ..., sequences: _Optional[int] = ..., free: _Optional[float] = ..., begin: _Optional[float] = ..., end: _Optional[float] = ..., sent: _Optional[float] = ..., idle: _Optional[bool] = ...) -> None: ...

class StageTrace(_message.Message):
    __slots__ = ("id", "stage", "now", "error", "spans")
    ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    id: int
    stage: int
    now: float
    error: float
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    def __init__(self, id: _Optional[int] = ..., stage: _Optional[int] = ..., now: _Optional[float] = ..., error: _Optional[float] = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ...) -> None: ...

class TraceRequest(_message.Message):
    __slots__ = ("spans",)
    SPANS_FIELD_NUMBER: _ClassVar[int]
    spans: int
    def __init__(self, spans: _Optional[int] = ...) -> None: ...

class PipelineTrace(_message.Message):
    __slots__ = ("pipeline", "stages")
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    pipeline: str
    stages: _containers.RepeatedCompositeFieldContainer[StageTrace]
    def __init__(self, pipeline: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[StageTrace, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("pipeline", "revision")
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    pipeline: str
    revision: str
    def __init__(self, pipeline: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "datatype", "shape", "optional", "limit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    optional: bool
    limit: int
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., optional: _Optional[bool] = ..., limit: _Optional[int] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("architecture", "task", "layers", "vocab_size", "max_model_len", "eos_token_ids", "pad_token_id", "embeds_text", "inputs", "outputs")
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    PAD_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    EMBEDS_TEXT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    task: Task
    layers: int
    vocab_size: int
    max_model_len: int
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    pad_token_id: int
    embeds_text: bool
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    def __init__(self, architecture: _Optional[str] = ..., task: _Optional[_Union[Task, str]] = ..., layers: _Optional[int] = ..., vocab_size: _Optional[int] = ..., max_model_len: _Optional[int] = ..., eos_token_ids: _Optional[_Iterable[int]] = ..., pad_token_id: _Optional[int] = ..., embeds_text: _Optional[bool] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ...) -> None: ...

class PipelineReport(_message.Message):
    __slots__ = ("model", "pipeline", "revision", "state", "message", "session", "sessions", "canary_seconds", "info", "stages", "waiting", "running", "sequences", "sequence_slots")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    CANARY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    pipeline: str
    revision: str
    state: PipelineState
    message: str
    session: int
    sessions: int
    canary_seconds: float
    info: ModelInfo
    stages: _containers.RepeatedCompositeFieldContainer[WorkerReport]
    waiting: int
    running: int
    sequences: int
    sequence_slots: int
    def __init__(self, model: _Optional[str] = ..., pipeline: _Optional[str] = ..., revision: _Optional[str] = ..., state: _Optional[_Union[PipelineState, str]] = ..., message: _Optional[str] = ..., session: _Optional[int] = ..., sessions: _Optional[int] = ..., canary_seconds: _Optional[float] = ..., info: _Optional[_Union[ModelInfo, _Mapping]] = ..., stages: _Optional[_Iterable[_Union[WorkerReport, _Mapping]]] = ..., waiting: _Optional[int] = ..., running: _Optional[int] = ..., sequences: _Optional[int] = ..., sequence_slots: _Optional[int] = ...) -> None: ...
