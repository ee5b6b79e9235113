"""The paper's printed numbers, ours beside them, and the verdict."""
