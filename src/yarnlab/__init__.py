"""yarnlab: reproduce YaRN end to end, extend your own RoPE model, and learn honestly whether it worked."""

__version__ = "0.1.0"
