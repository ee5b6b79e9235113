"""The tables of published numbers and the kinds of results that each sets beside them.

Light, as `contents` is, since the workflow reads it at every start. All needs are optional: without any results the
tables are made all the same, and say 'not run'. They also read config/reference/*.csv.
"""

_EVERYTHING = (
    "perplexity",
    "zero_shot",
    "dynamic",
    "sliding_window",
    "passkey",
    "passkey_official",
    "benchmarks",
    "temperature",
    "manifests",
)

PUBLISHED_NEEDS: dict[str, tuple[str, ...]] = {
    "verdicts": _EVERYTHING,
    "table_1": ("perplexity", "manifests"),
    "table_2": ("perplexity",),
    "table_3": ("benchmarks",),
    "table_4": ("sliding_window",),
    "table_5": ("passkey_official", "passkey", "manifests"),
    "table_6": ("perplexity",),
    "camera_ready_table_1": ("perplexity",),
    "camera_ready_table_2": ("benchmarks",),
    "camera_ready_table_4": ("manifests",),
    "camera_ready_table_5": ("zero_shot", "dynamic", "perplexity"),
    "camera_ready_ablation": ("perplexity", "passkey_official", "passkey", "benchmarks"),
    "stated_values": ("manifests", "temperature", "benchmarks"),
    "benchmark_results": ("benchmarks",),
    "published_curves": ("perplexity", "training", "temperature", "dynamic", "sliding_window"),
}
