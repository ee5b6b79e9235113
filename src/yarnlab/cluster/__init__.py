"""What SLURM offers, what a job asks of a machine, and why SLURM ended one."""
