"""The claims and their criteria, written before any result. L is the original context, s the scale.

Numbers follow the paper's argument (v2 = arXiv 2309.00071v2, v3 = the camera-ready); those that begin
with 'accept' are this study's own acceptance lines. Raise CRITERIA_VERSION with any change of a criterion.
"""

from __future__ import annotations

from yarnlab.results.claims import judge_long as long
from yarnlab.results.claims import judge_tuned as tuned
from yarnlab.results.claims import judge_zero_shot as zero
from yarnlab.results.claims.claims import Claim
from yarnlab.results.claims.criteria_base import UNTRAINED
from yarnlab.results.claims.criteria_exact import EXACT
from yarnlab.results.claims.criteria_models import FINE_TUNED

CRITERIA_VERSION = "5"

ACCEPTANCE = [
    Claim(
        "accept-zero-shot-order",
        "Without fine-tuning, at N = sL: YaRN < NTK-by-parts < NTK-aware < PI",
        "v3 Table 5",
        "At the ablation's scale s and N = sL, each ratio of neighbouring perplexities, paired by document, "
        "has a 95 % interval below 1.",
        ("zero_shot",),
        zero.order,
    ),
    Claim(
        "accept-finetuned-order",
        "Fine-tuned on the same budget, at N = sL: YaRN ≤ NTK-by-parts < PI",
        "v3 Table 5",
        "At N = sL the 95 % interval of YaRN / NTK-by-parts lies at or below 1 and that of "
        "NTK-by-parts / PI below 1, "
        "both paired by document.",
        ("perplexity",),
        tuned.order,
    ),
    Claim(
        "accept-collapse",
        "The first extended model collapses beyond sL",
        "v2 Table 2, Fig. 1",
        "Perplexity of the tokens in (sL, 2sL] over that of the tokens in (sL/2, sL]: the 95 % "
        "interval lies above 1, "
        "and above 2 (two parts).",
        ("perplexity",),
        long.collapse,
        role="extension",
    ),
    Claim(
        "accept-continuation",
        "The continuation, trained on the same rows, keeps falling to twice the window",
        "v2 §4.2, Table 2",
        "Continued at s' > s on rows of at most sL tokens: perplexity midway between sL and s'L is "
        "below that at sL, "
        "and at s'L below that midway; 95 % intervals of both ratios below 1.",
        ("perplexity",),
        long.keeps_falling,
        role="extension",
    ),
    Claim(
        "accept-passkey-base",
        "The base retrieves the passkey in its own window at least 95 % of the time",
        "premise of v2 §4.3.2",
        "Observed accuracy ≥ 95 % at every tested length up to L; undecided where lower but the 95 "
        "% interval reaches it.",
        ("passkey",),
        long.base_retrieves,
        role="extension",
    ),
    Claim(
        "accept-passkey-first",
        "The first extended model retrieves it at least 90 % of the time up to sL",
        "v2 §4.3.2, Table 5",
        "Observed accuracy ≥ 90 % at every tested length up to sL; undecided where lower but the 95 "
        "% interval reaches it.",
        ("passkey",),
        long.first_retrieves,
        role="extension",
    ),
    Claim(
        "accept-passkey-continued",
        "The continuation retrieves it at least 80 % of the time at its own sL",
        "v2 §4.3.2, Table 5",
        "Observed accuracy ≥ 80 % at N = s'L; undecided where lower but the 95 % interval reaches it.",
        ("passkey",),
        long.second_retrieves,
        role="extension",
    ),
]

CLAIMS = [*ACCEPTANCE, *EXACT, *UNTRAINED, *FINE_TUNED]
