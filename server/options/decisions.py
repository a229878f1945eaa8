"""What becomes of every option of vLLM's `serve`: honoured by a part of vLLM or of this server, or refused.

An option is in exactly one of these tables. A test walks vLLM's parser, so that an upgrade cannot add an
option that is accepted and ignored. docs/vllm-options.md is written from these tables.
"""

from dataclasses import dataclass

ONE_ENGINE = (
    "One server runs one engine. Start a server for each replica, and a load balancer in front of them"
)
NO_ROUTE = "This server does not offer the routes that the option is for"


def names(text: str) -> frozenset[str]:
    """The words of `text`."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Refusal:
    """Why an option is refused, and what to use instead: sentences without the last full stop."""

    reason: str
    harmless: tuple[str, ...] = ()
    """Values that ask for what this server does anyway. They are accepted."""
    when_off: bool = False
    """For an option with a `--no-` flag: refuse that flag and accept the other one."""


SERVER = names(
    """
    allow-credentials allowed-headers allowed-methods allowed-origins api-key config
    disable-access-log-for-endpoints disable-fastapi-docs disable-uvicorn-access-log
    enable-ssl-refresh enable-tokenizer-info-endpoint h11-max-header-count h11-max-incomplete-event-size
    host log-level lora-modules middleware model port root-path ssl-ca-certs ssl-cert-reqs ssl-certfile
    ssl-ciphers ssl-keyfile uds uvicorn-log-level
    """
)
"""Honoured by the HTTP server and the command of this project."""

HANDLERS = names(
    """
    anthropic-disabled-thinking-effort chat-template chat-template-content-format cohere-format
    default-chat-template-kwargs enable-auto-tool-choice enable-flash-late-interaction
    enable-force-include-usage enable-log-deltas enable-log-outputs enable-log-requests
    enable-per-request-metrics enable-prompt-tokens-details
    exclude-tools-when-tool-choice-none fingerprint-mode fingerprint-value log-error-stack max-log-len
    response-role return-tokens-as-token-ids served-model-name sse-keep-alive-interval tool-call-parser
    tool-parser-plugin tool-server tool-strict-level trust-request-chat-template trust-request-mm-kwargs
    """
)
"""Honoured by vLLM's request handlers, which this server calls."""

ENGINE = names(
    """
    additional-config all2all-backend allow-deprecated-quantization allowed-local-media-path
    allowed-media-domains async-scheduling attention-backend attention-config aux-output-config
    block-size code-revision collect-detailed-traces compilation-config config-format convert
    cp-kv-cache-interleave-size cpu-distributed-timeout-seconds cpu-offload-gb cpu-offload-params
    cudagraph-capture-sizes cudagraph-metrics custom-histogram-buckets dbo-decode-token-threshold
    dbo-prefill-token-threshold dcp-comm-backend dcp-kv-cache-interleave-size dcp-q-replicate
    decode-context-parallel-size device-ids diffusion-config disable-cascade-attn
    disable-chunked-mm-input disable-custom-all-reduce disable-hybrid-kv-cache-manager disable-log-stats
    disable-sliding-window distributed-executor-backend distributed-timeout-seconds download-dir dtype
    ec-manager-config enable-batch-sharded-sampling enable-chunked-prefill enable-cumem-allocator
    enable-dbo enable-eplb enable-ep-weight-filter enable-expert-parallel enable-flashinfer-autotune
    enable-hc-sp enable-layerwise-nvtx-tracing enable-logging-iteration-details
    enable-mamba-cache-stochastic-rounding enable-mamba-shared-prefix-checkpoint enable-mfu-metrics
    enable-mixed-moe-lora-format enable-mm-embeds enable-moe-shared-loras enable-prefix-caching
    enable-prompt-embeds enable-return-routed-experts enable-shm-tensor-arena enable-trace-replay
    enforce-eager engram-config eplb-config expert-placement-strategy fail-on-environ-validation
    gdn-prefill-backend generation-config gpu-memory-utilization hf-config-path hf-overrides hf-token
    ignore-patterns interleave-mm-strings io-processor-plugin ir-op-priority jit-monitor-mode
    jit-monitor-verbose kda-decode-backend kda-prefill-backend kernel-config kv-cache-dtype
    kv-cache-dtype-skip-layers kv-cache-memory-bytes kv-cache-metrics kv-cache-metrics-sample
    kv-events-config kv-offloading-backend kv-offloading-size kv-sharing-fast-prefill language-model-only
    limit-mm-per-prompt linear-backend load-format logits-processors logprobs-mode
    long-prefill-token-threshold long-prefill-token-threshold-adaptive lora-dtype lora-target-modules
    mamba-backend mamba-block-size mamba-cache-dtype mamba-cache-mode mamba-cache-philox-rounds
    mamba-ssm-cache-dtype mamba-ssu-algorithm max-cpu-loras max-cudagraph-capture-size max-logprobs
    max-lora-cls-labels max-lora-rank max-loras max-model-len max-num-active-seqs max-num-batched-tokens
    max-num-queued-reqs max-num-queued-tokens max-num-scheduled-tokens max-num-seqs
    max-parallel-loading-workers media-io-kwargs mm-device-do-normalize mm-encoder-attn-backend
    mm-encoder-attn-dtype mm-encoder-fp8-scale-path mm-encoder-fp8-scale-save-margin
    mm-encoder-fp8-scale-save-path mm-encoder-only mm-encoder-tp-mode mm-hasher-algorithm
    mm-ipc-gpu-memory-gb mm-processor-cache-gb mm-processor-cache-type mm-processor-device
    mm-processor-kwargs mm-shm-cache-max-object-size-mb mm-tensor-ipc model-class-overrides model-impl
    model-loader-extra-config moe-backend num-gpu-blocks-override numa-bind numa-bind-cpus
    numa-bind-nodes offload-backend offload-group-size offload-num-in-group offload-params
    offload-prefetch-step optimization-level otlp-traces-endpoint override-generation-config
    per-request-spec-decode-metrics performance-mode pipeline-parallel-size pooler-config
    prefill-context-parallel-size prefill-schedule-interval prefix-cache-retention-interval
    prefix-caching-hash-algo prefix-match-unit pt-load-map-location quantization quantization-config
    ray-workers-use-nsight reasoning-config reasoning-parser reasoning-parser-plugin renderer-num-workers
    replayssm-buffer-len return-sampling-mask revision runner safetensors-load-strategy
    safetensors-prefetch-block-size safetensors-prefetch-num-threads scheduler-cls
    scheduler-reserve-full-isl scheduling-policy seed show-hidden-metrics-for-version shutdown-timeout
    skip-mm-profiling skip-tokenizer-init sparse-indexer-topk-backend spec-method spec-model spec-tokens
    specialize-active-lora speculative-config stream-interval structured-outputs-config
    swa-bounded-replay tensor-parallel-size tokenizer tokenizer-mode tokenizer-revision trust-remote-code
    ubatch-size use-fp64-gumbel use-replayssm use-tqdm-on-load video-pruning-method video-pruning-rate
    watermark watermark-config worker-cls
    """
)
"""Honoured by vLLM's engine."""

_ONE_ENGINE = Refusal(ONE_ENGINE)
_ONE_MACHINE = Refusal(
    "The server starts the engine on its own machine only. Use --tensor-parallel-size with its devices, or "
    "--distributed-executor-backend ray"
)
_SLEEP = Refusal(f"{NO_ROUTE} (/sleep and /wake_up). Stop the server, and start it again when it is needed")
_PROBES = Refusal("One server runs one engine. Its probes are /livez and /readyz")
_RESTARTS = Refusal("The server replaces a failed engine itself. --hang-seconds says how long it waits")
_TOWER = Refusal(
    "Requests choose adapters for the language model only. Leave the option out; an adapter with tensors of "
    "another part is refused when it is registered"
)

REFUSED = {
    "aggregate-engine-logging": Refusal("One server runs one engine, so there is nothing to aggregate"),
    "api-server-count": Refusal("The HTTP server is one process. Leave the option out", harmless=("1",)),
    "cohere-is-reasoning-model": Refusal(f"{NO_ROUTE} (/cohere). Use /v1/chat/completions"),
    "data-parallel-address": _ONE_ENGINE,
    "data-parallel-backend": _ONE_ENGINE,
    "data-parallel-external-lb": _ONE_ENGINE,
    "data-parallel-hybrid-lb": _ONE_ENGINE,
    "data-parallel-multi-port-external-lb": _ONE_ENGINE,
    "data-parallel-rank": _ONE_ENGINE,
    "data-parallel-rpc-port": _ONE_ENGINE,
    "data-parallel-size": Refusal(ONE_ENGINE, harmless=("1",)),
    "data-parallel-size-local": Refusal(ONE_ENGINE, harmless=("1",)),
    "data-parallel-start-rank": _ONE_ENGINE,
    "data-parallel-supervisor-port": _PROBES,
    "default-mm-loras": Refusal(
        "The base is always answered without an adapter. Name the adapter in the field model of the request"
    ),
    "disable-nccl-for-dp-synchronization": _ONE_ENGINE,
    "dp-supervisor-probe-failure-threshold": _PROBES,
    "dp-supervisor-probe-interval-s": _PROBES,
    "dp-supervisor-probe-timeout-s": _PROBES,
    "dp-sync-interval": _ONE_ENGINE,
    "ec-transfer-config": Refusal(
        "The caches of two servers cannot be shared, because the same name can be another adapter there"
    ),
    "elastic-ep-max-dp-size": _ONE_ENGINE,
    "enable-elastic-ep": _ONE_ENGINE,
    "enable-fault-tolerance": _RESTARTS,
    "enable-lora": Refusal("The server always serves adapters. Use `vllm serve` without them", when_off=True),
    "enable-nccl-comm-suspend": _SLEEP,
    "enable-request-id-headers": Refusal(
        "Every response has the header x-request-id. Leave the option out", when_off=True
    ),
    "enable-offline-docs": Refusal(
        "The page /docs never needs files from the internet. Leave the option out", when_off=True
    ),
    "enable-server-load-tracking": Refusal(
        "The requests in flight are always counted. Leave the option out", when_off=True
    ),
    "enable-scale-out": Refusal(f"{NO_ROUTE} (/render, /derender, /inference). Use /v1/chat/completions"),
    "enable-sleep-mode": _SLEEP,
    "enable-tower-connector-lora": _TOWER,
    "fault-tolerance-config": _RESTARTS,
    "fully-sharded-loras": Refusal(
        "The weights of a request are applied to whole factors. Leave the option out. Answers are the same"
    ),
    "grpc": Refusal("The server speaks HTTP only. Use the OpenAI API at --port"),
    "grpc-port": Refusal("The server speaks HTTP only. Use the OpenAI API at --port"),
    "headless": _ONE_MACHINE,
    "kv-transfer-config": Refusal(
        "A KV cache outside the server is kept by name, and the same name can be another adapter there. Use "
        "--kv-offloading-size to keep more of the cache in host memory"
    ),
    "log-config-file": Refusal("Use --log-format, --log-level and --uvicorn-log-level"),
    "logging-config": Refusal("Use --log-format and --log-level"),
    "master-addr": _ONE_MACHINE,
    "master-port": _ONE_MACHINE,
    "nnodes": Refusal(_ONE_MACHINE.reason, harmless=("1",)),
    "node-rank": Refusal(_ONE_MACHINE.reason, harmless=("0",)),
    "profiler-config": Refusal(f"{NO_ROUTE} (/start_profile). Profile the same model with `vllm serve`"),
    "sleep-mode-offload-cudagraph": _SLEEP,
    "sleep-preserve-parameter-names": _SLEEP,
    "tokens-only": Refusal(f"{NO_ROUTE} (/inference). Use /v1/completions with token ids as the prompt"),
    "weight-transfer-config": Refusal(
        f"{NO_ROUTE}. Register new weights as the next version of an adapter with POST /v1/adapters"
    ),
    "worker-extension-cls": Refusal(
        "The server needs its own worker extension. Use --worker-cls for a worker of your own"
    ),
}
"""Refused when the server starts."""

_REMOVED = "vLLM has removed the option. Leave it out"

ELSEWHERE = {
    "adapter-source": "Use --lora-modules, or --allow-hf and POST /v1/adapters",
    "context-length": "Use --max-model-len",
    "ctx-size": "Use --max-model-len",
    "device": "The installed vLLM decides the device. Install the extra cpu or gpu",
    "disable-frontend-multiprocessing": "The engine is always a process of its own. Leave the option out",
    "disable-log-requests": "Requests are logged only with --enable-log-requests. Leave the option out",
    "enable-reasoning": "Use --reasoning-parser",
    "guided-decoding-backend": "Use --structured-outputs-config",
    "lora": "Use --lora-modules NAME=PATH",
    "lora-extra-vocab-size": _REMOVED,
    "lora-paths": "Use --lora-modules NAME=PATH",
    "lora-scaled": "Use --lora-modules NAME=PATH. A request gives the weight",
    "long-lora-scaling-factors": _REMOVED,
    "max-input-length": "Use --max-model-len",
    "max-loras-per-batch": "Use --max-loras",
    "mem-fraction-static": "Use --gpu-memory-utilization",
    "model-id": "Use --model",
    "model-path": "Use --model",
    "num-scheduler-steps": _REMOVED,
    "preemption-mode": _REMOVED,
    "swap-space": "vLLM has removed the option. Use --kv-offloading-size",
    "task": "Use --runner and --convert",
    "timeout-keep-alive": "Use --keep-alive-seconds",
    "tp-size": "Use --tensor-parallel-size",
    "use-v2-block-manager": _REMOVED,
}
"""Options of older versions of vLLM, of other servers and of uvicorn, and what to use instead."""


def honoured_by(name: str) -> str | None:
    """The part that honours the option, in words; None if it is refused."""
    if name in REFUSED:
        refusal = REFUSED[name]
        return "server" if refusal.when_off else None
    return "server" if name in SERVER else "vLLM's handlers" if name in HANDLERS else "vLLM's engine"
