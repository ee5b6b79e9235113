"""report: everything -> report.html, one self-contained page."""


rule report:
    """The report: what held, what did not, what was not run."""
    input:
        rules.tables.input,
        rules.figures.input,
        claims="<results>/claims.json",
        runs="<results>/tracking/runs.json",
        manifests=flow.manifests(),
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        code=flow.code("report"),
    shell:
        "python -m yarnlab report --study-dir {params.results:q} 2> {log}"
