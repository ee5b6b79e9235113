"""Claims on fine-tuned models, 17 to 35, and their criteria; L is the original context, s the scale.

Methods that are compared were fine-tuned alike: from one parent, at one s, on the same batches and for as many steps
(the steps may differ in claim 33 alone).
"""

from __future__ import annotations

from yarnlab.results.claims import judge_long as long
from yarnlab.results.claims import judge_mechanism as mechanism
from yarnlab.results.claims import judge_protocols as protocols
from yarnlab.results.claims import judge_transfer as transfer
from yarnlab.results.claims import judge_tuned as tuned
from yarnlab.results.claims.claims import Claim

FINE_TUNED = [
    Claim(
        "17",
        "YaRN converges fastest and has the lowest training loss",
        "v3 Fig. 2",
        "For NTK-by-parts, NTK-aware and PI: even the smallest 20-step mean of the loss gap to YaRN "
        "on the same batches "
        "is positive, 95 % interval over the steps of that stretch (and over seeds, if several) above 0.",
        ("training",),
        tuned.claim_17,
        "supported",
    ),
    Claim(
        "18",
        "After fine-tuning, YaRN has the best perplexity at long context",
        "v3 Table 5, Fig. 3",
        "At N = sL: YaRN ≤ NTK-by-parts < PI, and NTK-aware's ppl(sL) / ppl(sL/2) above 1. 95 % intervals, paired.",
        ("perplexity",),
        tuned.claim_18,
        "supported at N ≥ 3L; contradicted at N ≤ 2.5L",
    ),
    Claim(
        "19",
        "Fine-tuned NTK-aware is inferior to PI",
        "v2 §3.1",
        "NTK-aware / PI above 1 at N = sL and below 1 at L, 2L, … sL/2. 95 % intervals, paired by document.",
        ("perplexity",),
        tuned.claim_19,
        "supported in part",
    ),
    Claim(
        "20",
        "Short contexts are not hurt",
        "v2 §3.2",
        "YaRN / base at most 1.04 at L/2 and L; at L, NTK-by-parts ≤ YaRN < NTK-aware < PI. 95 % intervals, paired.",
        ("perplexity",),
        tuned.claim_20,
        "supported in part",
    ),
    Claim(
        "21",
        "At equal budget YaRN retrieves the passkey best",
        "v3 §4.3",
        "Accuracy pooled over all tested N ≤ sL/2 on the same prompts, YaRN minus each of NTK-by-parts, NTK-aware "
        "and PI: above 0 by the exact sign-flip test over prompts (of one seed McNemar's) with Holm's correction over "
        "the three (p < 0.05), and the 95 % interval (Newcombe, paired) excludes 0. A tie is undecided.",
        ("passkey",),
        tuned.claim_21,
        "supported in part",
    ),
    Claim(
        "22",
        "At s = 2 YaRN ties with PI inside the window and is better outside",
        "v2 Table 1",
        "Fine-tuned alike at s = 2: YaRN / PI between 0.99 and 1.01 at L and 2L, and below 1 at 2.5L. 95 "
        "% intervals, paired.",
        ("perplexity",),
        tuned.claim_22,
        "supported in part",
        role="extension",
    ),
    Claim(
        "23",
        "Perplexity falls up to the trained window",
        "v2 Table 2, Fig. 1",
        "ppl(sL) < ppl(sL/2) < ppl(sL/8): 95 % intervals of both ratios below 1, paired by document.",
        ("perplexity",),
        long.claim_23,
        "supported",
        role="extension",
    ),
    Claim(
        "24",
        "The model collapses beyond its window",
        "v2 Table 2",
        "ppl(1.5 sL) / ppl(sL), cumulative: 95 % interval above 2.",
        ("perplexity",),
        long.claim_24,
        "supported",
        role="extension",
    ),
    Claim(
        "25",
        "Train short, test long: trained on sL-token rows, the continuation works to s'L",
        "v2 §4.2, Table 2",
        "ppl(s'L) ≤ ppl(sL), and mean NLL on (sL, s'L] at most 1.02 times that on (sL/2, sL]. 95 % intervals, paired.",
        ("perplexity",),
        long.claim_25,
        "supported; the stronger wording 'continued declining' is contradicted",
        role="extension",
    ),
    Claim(
        "26",
        "Moving on to the larger scale costs nothing inside the first window",
        "v2 §4.2",
        "Continued / first at most 1.02 at L/2, L, 2L, … sL. 95 % intervals, paired by document.",
        ("perplexity",),
        long.claim_26,
        "supported as ≤ 2 %; contradicted as 'equivalent'",
        role="extension",
    ),
    Claim(
        "26-control",
        "Moving PI on to the larger scale does cost something inside the first window",
        "control of claim 26",
        "A PI arm trained and continued to the same s' as YaRN was: its continued / first ratio over YaRN's is "
        "above 1 at L, 2L, … sL. 95 % intervals, paired by document.",
        ("perplexity",),
        long.claim_26_control,
        "not tested in the paper",
        role="extension",
    ),
    Claim(
        "27",
        "Beyond its window PI breaks down, NTK-aware more gently",
        "v2 Table 2",
        "Fine-tuned alike at s: PI's ppl(2sL) / ppl(sL) above 10, and NTK-aware's rise over PI's below 1. 95 % "
        "intervals, paired by document.",
        ("perplexity",),
        transfer.claim_27,
        "supported, by models trained on other data",
        role="extension",
    ),
    Claim(
        "28",
        "Under the sliding-window protocol: YaRN ≤ PI < NTK-aware",
        "v2 §4.3.1, Table 4",
        "Fine-tuned on the same budget: differences in ln perplexity of neighbours, windows pooled as the official"
        " code does and again with every document weighing the same. 95 % intervals at or below 0 (YaRN, PI) and "
        "below 0 (PI, NTK-aware), paired and resampled by document.",
        ("sliding_window",),
        protocols.claim_28,
        "supported for YaRN against PI, by other models",
        role="extension",
    ),
    Claim(
        "29",
        "Passkey above 99 % through the whole window",
        "v2 §4.3.2, Table 5",
        "Observed accuracy over 2L … s'L ≥ 99 % (continued) and over 2L … sL ≥ 95 % (first); "
        "undecided where lower but "
        "the 95 % interval reaches it.",
        ("passkey",),
        long.claim_29,
        "supported",
        role="extension",
    ),
    Claim(
        "30",
        "The lowest perplexity is not the longest effective context",
        "v2 App. B.2",
        "Over all pairs of fine-tuned models at N = sL: in at least one the model with the higher perplexity "
        "(paired 95 % interval above 0) retrieves more passkeys (exact sign-flip test over prompts, of one seed "
        "McNemar's; Holm over all pairs, p < 0.05). It fails only if every pair is proven to agree.",
        (
            "perplexity",
            "passkey",
        ),
        protocols.claim_30,
        "supported in part",
        role="extension",
    ),
    Claim(
        "31",
        "Short tasks and short texts suffer little",
        "v2 §4.3.3, Table 3",
        "Extended minus base on the same items, mean over the tasks: at least −1.5 percentage points; mean NLL of "
        "held-out text of L tokens: at most +0.03 nat. Both extended models, 95 % intervals, paired.",
        (
            "benchmarks",
            "benchmarks.samples",
            "perplexity",
        ),
        protocols.claim_31,
        "supported",
        role="extension",
    ),
    Claim(
        "32",
        "Moving on to the larger scale costs short tasks at most half a point",
        "v2 §4.3.3",
        "Continued minus first on the same items, mean over the tasks: at least −0.5 percentage points. 95 % "
        "interval, paired.",
        (
            "benchmarks",
            "benchmarks.samples",
        ),
        protocols.claim_32,
        "supported",
        role="extension",
    ),
    Claim(
        "33",
        "YaRN needs 2.5 times fewer steps than PI",
        "v2 abstract, §4",
        "On the same batches: YaRN's 10-step mean training loss up to step S/2.5 is at most PI's over its last 10 of S "
        "steps. 95 % interval of the difference, over steps (and over seeds, if several).",
        ("training",),
        transfer.claim_33,
        "not tested in the paper at equal data",
    ),
    Claim(
        "34",
        "Rows of 2L tokens are enough to extend further",
        "v2 App. B.4, Table 6",
        "YaRN at s ≥ 4, fine-tuned on rows of at most 2L tokens: ppl(sL) / ppl(sL/2) below 1. 95 % interval, paired.",
        ("perplexity",),
        transfer.claim_34,
        "supported, with constants that the paper does not print",
        role="portability",
    ),
    Claim(
        "35",
        "The exact shape of the ramp does not matter",
        "v2 §3.2, footnote 4",
        "|Δ ln ppl(sL)| of every other ramp (Eq. 18 instead of the official code's, rounding, α and β) to the "
        "official one is at most 0.02: untrained at every s, and fine-tuned where the study has such an arm beside an "
        "official one trained alike. Ramps with another temperature are left out. The whole 95 % interval, paired by "
        "document.",
        ("ramp",),
        mechanism.claim_35,
        "not tested in the paper",
    ),
]
