"""The criteria at full scale, where they differ from the scale-free ones; numbers are the paper's, cited with each.

Lengths are tokens; the base, its L and the arms are those of the root that the study names for the claim.
"""

from __future__ import annotations

from yarnlab.results.claims import judge_full_scale as full
from yarnlab.results.claims.claims import Form
from yarnlab.results.claims.judge_transfer import claim_34_full

FULL_SCALE = {
    "7": Form(
        "At the shortest measured length of at least 1.17 L the base's perplexity over that at L is above 1.3 (v2 "
        "Fig. 5: 5.65 at 4,800 against 4.04 at 4,000). 95 % interval, paired by document.",
        ("perplexity",),
        full.claim_7,
    ),
    "8": Form(
        "For s in {2, 4, 8, 16} and N = 2L, 4L, … sL: YaRN over NTK-by-parts, NTK-aware and PI below 1 (v3 Table 5; "
        "s = 8 at 8L: 3.33 against 5.79, > 10, > 10). 95 % intervals, paired by document.",
        ("zero_shot",),
        full.claim_8,
    ),
    "10": Form(
        "s = 8: NTK-aware / PI below 1 at 4L, and NTK-aware's ppl(8L) / ppl(4L) above 1; s = 2: NTK-aware / PI above "
        "1 at 2L (v3 Table 5: 4.24, > 10; 5.97 against 3.90). 95 % intervals, paired by document.",
        ("zero_shot",),
        full.claim_10,
    ),
    "13": Form(
        "s = 8: for every √(1/t) of the grid in [1.1, 1.4] and in every segment, NLL is below that with 1.00 (v2 Fig. "
        "3). 95 % intervals, paired by document.",
        ("temperature",),
        full.claim_13,
    ),
    "14": Form(
        "s = 8: 1.20 is the most frequent best factor in at least 7 segments (95 % interval, documents resampled), and "
        "at least half of the documents × segments have theirs within 0.025 of it (observed share; v2 Fig. 4). Fewer "
        "than 8 documents do not decide the first.",
        ("temperature",),
        full.claim_14,
    ),
    "15": Form(
        "Line through the best factors over ln s: slope between 0.07 and 0.13, intercept between 0.97 and 1.03 (v2 Eq. "
        "22). 95 % intervals, documents resampled. Left out: scales whose best factor is at an edge of the grid, and "
        "those with a document that was read to fewer than s·L tokens.",
        ("temperature",),
        full.claim_15,
    ),
    "18": Form(
        "At N = sL: YaRN < NTK-by-parts < PI < NTK-aware (v3 Table 5 at 32k: 2.77, 2.81, 3.57, 8.49). 95 % intervals, "
        "paired by document.",
        ("perplexity",),
        full.claim_18,
    ),
    "22": Form(
        "Fine-tuned alike at s = 2, at L/2, L and 2L: |ln YaRN / PI| at most 0.01 and NTK-aware / PI at least 1.05; at "
        "2.5L YaRN < NTK-aware < PI (v2 Table 1: 6.05, 6.24, 8.07). 95 % intervals, paired by document.",
        ("perplexity",),
        full.claim_22,
    ),
    "24": Form(
        "Perplexity at 1.5 sL above 10 (v2 Table 2). 95 % interval.",
        ("perplexity",),
        full.claim_24,
    ),
    "25": Form(
        "ppl(s'L) of the continuation at most ppl(sL) (v2 Table 2: 2.37 and 2.45 for 7B). 95 % interval, paired by "
        "document.",
        ("perplexity",),
        full.claim_25,
    ),
    "27": Form(
        "YaRN s = 32 / Code Llama below 1 at 8k, 32k, 64k, 96k and 128k, 7B and 13B; Together's perplexity at 64k, "
        "twice its window, above 100 (v2 Table 2). 95 % intervals, paired by document.",
        ("perplexity",),
        full.claim_27,
    ),
    "28": Form(
        "Windows pooled as the official code does: 7B s = 16 < s = 32 < Together < Code Llama; 13B s = 16 < s = 32 < "
        "Code Llama (v2 Table 4). 95 % intervals below 0, paired and resampled by document.",
        ("sliding_window",),
        full.claim_28,
    ),
    "29": Form(
        "Official protocol, 8k to 128k: s = 32 of 7B and of 13B find at least 159 of 160 passkeys (v2 Table 5); "
        "undecided where fewer but the 95 % interval reaches that share.",
        ("passkey_official",),
        full.claim_29,
    ),
    "31": Form(
        "Extended minus base, mean of ARC, HellaSwag, MMLU and TruthfulQA: at least −1.5 percentage points, s = 16 and "
        "s = 32 (v2 Table 3). 95 % intervals over the same items.",
        ("benchmarks", "benchmarks.samples"),
        full.claim_31,
    ),
    "32": Form(
        "s = 16 minus s = 32, mean of the four tasks: 0.49 ± 0.3 percentage points (v2 §4.3.3). 95 % interval over the "
        "same items.",
        ("benchmarks", "benchmarks.samples"),
        full.claim_32,
    ),
    "33": Form(
        "Tokens of the first extension at most 0.1 % of the 2 T of Llama 2's pre-training, and at least 2.5 times "
        "fewer steps than the 1,000 of Chen et al. (abstract, v2 §4).",
        ("training",),
        full.claim_33,
    ),
    "34": Form(
        "Trained on rows of 2L: ppl(128k) of s = 16 at most 1.02 times its ppl(64k); the base's at 128k above 1,000 "
        "(v2 Table 6: 2.19 and 2.24). 95 % intervals.",
        ("perplexity",),
        claim_34_full,
    ),
}
