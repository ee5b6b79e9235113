"""The tables and figures of a report and what each is made from.

Light, since the workflow reads it at every start. Kinds of results: the evaluations (study/evaluations.py), training
(step logs), manifests (every stage's). Without the first kind there is no table; the others add to it.
"""

TABLE_NEEDS: dict[str, tuple[str, ...]] = {
    "perplexity": ("perplexity",),
    "ablation": ("perplexity", "passkey"),
    "zero_shot": ("zero_shot",),
    "passkey": ("passkey",),
    "passkey_comparison": ("passkey",),
    "benchmarks": ("benchmarks",),
    "temperature": ("temperature",),
    "ramp": ("ramp",),
    "entropy": ("entropy",),
    "dynamic": ("dynamic",),
    "key_cache": ("key_cache",),
    "sliding_window": ("sliding_window",),
    "passkey_official": ("passkey_official", "passkey"),
    "training": ("training",),
    "cost": ("manifests",),
}
FIGURE_NEEDS: dict[str, tuple[str, ...]] = {
    "figure_1": ("perplexity",),
    "bucket_nll": ("perplexity",),
    "ablation": ("perplexity",),
    "training_loss": ("training",),
    "passkey": ("passkey",),
    "zero_shot": ("zero_shot",),
    "benchmarks": ("benchmarks",),
    "temperature_curve": ("temperature",),
    "temperature_segments": ("temperature",),
    "temperature_histogram": ("temperature",),
    "temperature_fit": ("temperature",),
    "ramp": ("ramp",),
    "entropy": ("entropy",),
    "dynamic": ("dynamic",),
    "cost": ("manifests",),
}
