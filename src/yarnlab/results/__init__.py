"""Statistics, tables, figures and claims: pure functions of a study's result files (no torch)."""
