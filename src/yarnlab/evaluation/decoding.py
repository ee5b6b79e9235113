"""How answers are decoded: options of transformers' `generate`."""

from __future__ import annotations

from typing import Any

# The official call sets no decoding option, so the checkpoint's generation_config rules: the released ones sample with
# these values, top_k being the default of transformers that they leave in place.
DECODING: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "released": {"do_sample": True, "temperature": 0.6, "top_k": 50, "top_p": 0.9},
}
