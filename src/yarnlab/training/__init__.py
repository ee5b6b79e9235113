"""Training: one loop for every model of a study, its data rows, schedule, checkpoints."""
