"""Claims 1 to 5, identities that need no training; computed at the shapes of the study's own models."""

from __future__ import annotations

from yarnlab.results.bases import EVERY
from yarnlab.results.claims import identities
from yarnlab.results.claims.claims import Claim

EXACT = [
    Claim(
        "1",
        "The temperature is a scaling of the cos and sin tables",
        "v2 §3.4, Eq. 21",
        "Random q and k of 64 positions, s in {2, 4, 8, 16, 32}: logits from tables times √(1/t) and logits divided by "
        "t differ by less than 1e-5 (fp32).",
        (),
        identities.claim_1,
        "supported",
        EVERY,
    ),
    Claim(
        "2",
        "The factor is √(1/t) = 0.1 ln s + 1",
        "v2 Eq. 22",
        "1.0693, 1.1386, 1.2079, 1.2773 and 1.3466 for s = 2, 4, 8, 16 and 32 to half a digit; exactly 1 at s = 1.",
        (),
        identities.claim_2,
        "supported",
        EVERY,
    ),
    Claim(
        "3",
        "NTK-aware keeps the highest frequency and divides the lowest by s",
        "v2 Eqs. 23, 24",
        "Both to a relative 1e-6, s in {2, 4, 8, 16, 32}.",
        (),
        identities.claim_3,
        "supported",
        EVERY,
    ),
    Claim(
        "4",
        "NTK-by-parts never extrapolates",
        "v2 §3.2",
        "With α = 1, β = 32, unrounded: pairs of fewer than α turns within L are PI's, those of more than β are "
        "unchanged, and θ/s ≤ h(θ) ≤ θ for all, to a relative 1e-6.",
        (),
        identities.claim_4,
        "supported",
        EVERY,
    ),
    Claim(
        "5",
        "Dynamic scaling changes nothing up to L",
        "v2 §3.3",
        "For each dynamic method and texts of 1, 2, L/2 and L tokens: frequencies equal to plain RoPE's bit for bit, "
        "attention factor 1.",
        (),
        identities.claim_5,
        "supported in part: the paper's Fig. 5 shows Dynamic PI above RoPE from 3.2k of 4k",
        EVERY,
    ),
]
