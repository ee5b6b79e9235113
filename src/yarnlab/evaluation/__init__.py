"""The evaluation protocols; each returns a tidy table of one row per measured value and names its version."""
