"""Claims on the untrained base, 6 to 16, and their criteria; L is the original context, s the scale."""

from __future__ import annotations

from yarnlab.results.claims import judge_dynamic as dynamic
from yarnlab.results.claims import judge_mechanism as mechanism
from yarnlab.results.claims import judge_zero_shot as zero
from yarnlab.results.claims.claims import Claim

UNTRAINED = [
    Claim(
        "6",
        "Dynamic scaling needs keys cached before the rotation",
        "v2 §3.3",
        "For every dynamic method, mean NLL with keys cached after the rotation minus that with keys cached before"
        " it, the same text read token by token: at most 0.001 nat on tokens up to L, above 0 on the tokens "
        "beyond. 95 % intervals, paired by document. The size of the cost is the result.",
        ("key_cache",),
        dynamic.claim_6,
        role="extension",
    ),
    Claim(
        "7",
        "Raw RoPE blows up beyond its window",
        "v2 §1, Fig. 5",
        "ppl(2L) / ppl(L) of the base: 95 % interval above 2.",
        ("perplexity",),
        zero.claim_7,
        "supported",
    ),
    Claim(
        "8",
        "Zero-shot, YaRN is best at every scale, by a margin that grows",
        "v3 Table 5",
        "For s in {4, 8, 16} at N = sL: YaRN over NTK-by-parts, NTK-aware and PI below 1; each gap "
        "in ln ppl larger at "
        "s = 16 than at s = 4. 95 % intervals, paired by document.",
        ("zero_shot",),
        zero.claim_8,
        "supported",
    ),
    Claim(
        "9",
        "The temperature, not the ramp, saves large scales",
        "v3 Table 5",
        "For s in {4, 8, 16} at N = sL: NTK-by-parts over YaRN above 1, and the gap in ln ppl grows "
        "at each step of s. "
        "95 % intervals, paired by document.",
        ("zero_shot",),
        zero.claim_9,
        "supported",
    ),
    Claim(
        "10",
        "NTK-aware beats PI zero-shot, but its usable window is shorter than sL",
        "v2 §3.1",
        "For s in {4, 8, 16}: NTK-aware / PI below 1 at N = sL/2, and NTK-aware's ppl(sL) / "
        "ppl(sL/2) above 1. "
        "95 % intervals, paired by document.",
        ("zero_shot",),
        zero.claim_10,
        "supported",
    ),
    Claim(
        "11",
        "Dynamic scaling prevents the blow-up, and Dynamic YaRN is better than Dynamic PI",
        "v2 App. B.3, Fig. 5",
        "At every measured N in (L, 4L], without fine-tuning: Dynamic YaRN / Dynamic PI and Dynamic PI / RoPE "
        "below 1; Dynamic YaRN's ppl(2L) at most 1.05 times ppl(L). 95 % intervals, paired by document.",
        ("dynamic",),
        dynamic.claim_11,
        "supported, on one document",
    ),
    Claim(
        "12",
        "Dynamic YaRN more than doubles the context without fine-tuning",
        "v2 abstract, §1",
        "At the smallest measured N above 2L (one length, fixed beforehand), Dynamic YaRN's perplexity is at most "
        "that of the base at L, for the whole length and for its last tokens alone, each against the same measure "
        "at L. 95 % intervals, paired.",
        ("dynamic",),
        dynamic.claim_12,
        "supported by v3 Table 5; Fig. 5 ends at 1.9L",
    ),
    Claim(
        "13",
        "A temperature below 1 helps at every position and in almost every document",
        "v2 §3.4, App. A.2, Fig. 3",
        "At s = 8 without fine-tuning: in every segment of the text, NLL with the formula's factor 0.1 ln s + 1 is"
        " below that with factor 1 (95 % interval, paired); the grid's best factor is above 1 for at least 95 % of"
        " the documents (observed share).",
        ("temperature",),
        mechanism.claim_13,
        "supported; the effect grows with the position",
    ),
    Claim(
        "14",
        "The best temperature is the same for all documents and positions",
        "v2 App. A.2, Fig. 4",
        "At s = 8: the interquartile range of the documents' best factors on the grid is at most 0.10, and so is "
        "the range of the segments' modal best factors. 95 % intervals, documents resampled; fewer than 8 documents "
        "decide nothing.",
        ("temperature",),
        mechanism.claim_14,
        "supported in part",
    ),
    Claim(
        "15",
        "The best √(1/t) grows with ln s from about 1",
        "v2 §3.4, Eq. 22",
        "Line through the best factors over ln s: slope above 0, intercept between 0.97 and 1.03 (95 % intervals, "
        "documents resampled). Left out: scales whose best factor is at an edge of the grid, and those with a document "
        "that was read to fewer than s·L tokens. The slope is reported beside the paper's 0.1, not judged: the "
        "authors' own code for Mistral takes 0.07.",
        ("temperature",),
        mechanism.claim_15,
        "supported in part",
    ),
    Claim(
        "16",
        "Interpolation raises the entropy of the attention; the temperature brings it back",
        "v2 §3.4",
        "Mean attention entropy of the base within its context: under PI and under NTK-by-parts above that of "
        "plain RoPE at every s and growing with s; at every s, YaRN's is nearer to plain RoPE's than that of NTK-"
        "by-parts. 95 % intervals, paired by document.",
        ("entropy",),
        mechanism.claim_16,
        "not tested in the paper",
    ),
]
