"""The tables and figures of a report and what each is made from.

Light, since the workflow reads it at every start. Kinds of results: the evaluations (study/evaluations.py), training
(step logs), manifests (every stage's). Without the first kind there is no table; the others add to it.
"""

from yarnlab.results.tables import published

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
    "entropy_by_layer": ("entropy",),
    "dynamic": ("dynamic",),
    "key_cache": ("key_cache",),
    "sliding_window": ("sliding_window",),
    "passkey_official": ("passkey_official", "passkey"),
    "training": ("training",),
    "cost": ("manifests",),
}
TABLE_NEEDS |= {name: needs for name, _, needs, _ in published.TABLES}
FIGURE_NEEDS: dict[str, tuple[str, ...]] = {
    "figure_1": ("perplexity",),
    "figure_1_relative": ("perplexity",),
    "frequencies": ("manifests",),
    "bucket_nll": ("perplexity",),
    "ablation": ("perplexity",),
    "training_loss": ("training",),
    "passkey": ("passkey",),
    "zero_shot": ("zero_shot",),
    "benchmarks": ("benchmarks",),
    "temperature_sweep": ("temperature",),
    "temperature_curve": ("temperature",),
    "temperature_segments": ("temperature",),
    "temperature_histogram": ("temperature",),
    "temperature_documents": ("temperature",),
    "temperature_fit": ("temperature",),
    "ramp": ("ramp",),
    "entropy": ("entropy",),
    "dynamic": ("dynamic",),
    "dynamic_relative": ("dynamic",),
    "cost": ("manifests",),
}

# The paper's names for its tables and figures → the files that hold ours.
PAPER_TARGETS = {
    **{f"table_{i}": f"tables/table_{i}.csv" for i in range(1, 7)},
    "ablation": "tables/camera_ready_ablation.csv",
    "figure_1": "figures/figure_1.svg",
    "figure_2": "figures/temperature_curve.svg",
    "figure_3": "figures/temperature_segments.svg",
    "figure_4": "figures/temperature_histogram.svg",
    "figure_5": "figures/dynamic.svg",
    "figure_6": "figures/figure_1.svg",
}
