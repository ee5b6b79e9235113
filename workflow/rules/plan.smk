"""What the study will take: `snakemake plan --config study=NAME device=h100 mfu=0.4`; nothing is run.

Options are those of `yarnlab plan`; device defaults to an H100 for published models, to this CPU otherwise.
"""


rule plan:
    """Print operations, hours, memory, disk and downloads by stage; fail if something cannot fit."""
    log:
        "<logs>/plan.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        study=str(config.get("study", "micro")),
        options=" ".join(f"--{key} {config[key]}" for key in ("device", "mfu") if key in config),
    shell:
        "python -m yarnlab plan {params.study:q} {params.options} 2>&1 | tee {log}"
