"""The tables and figures of a report and what each is made from.

Light, since the workflow reads it at every start. Kinds of results: perplexity, zero_shot, passkey
(evaluations), training (step logs), manifests (every stage's).
"""

TABLE_NEEDS: dict[str, tuple[str, ...]] = {
    "perplexity": ("perplexity",),
    "ablation": ("perplexity", "passkey"),
    "zero_shot": ("zero_shot",),
    "passkey": ("passkey",),
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
    "cost": ("manifests",),
}
