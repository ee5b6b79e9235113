"""MLflow as a mirror of what is on disk.

init_tracking: () -> tracking/ready            before anything else
publish:       every manifest -> tracking/runs.json
"""

from importlib.metadata import version


localrules:
    init_tracking,
    publish,


rule init_tracking:
    """Create the MLflow database, and upgrade it for another MLflow; concurrent first use of sqlite races."""
    output:
        touch("<results>/tracking/ready"),
    log:
        "<logs>/init_tracking.log",
    priority: 100
    conda:
        "../../envs/conda.yaml"
    params:
        mlflow=version("mlflow"),
    shell:
        "python -m yarnlab init-tracking 2> {log:q}"


rule publish:
    """Copy what MLflow lacks; again for another MLflow, after a failure, and where the database is lost."""
    input:
        manifests=flow.manifests(),
        ready=ancient("<results>/tracking/ready"),
    output:
        "<results>/tracking/runs.json",
    log:
        "<logs>/publish.log",
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        state=lambda wildcards: publication_state(Path(flow.root)),
    shell:
        "python -m yarnlab publish --study-dir {params.results:q} 2>&1 | tee {log:q}"
