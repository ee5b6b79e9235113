"""What is made of the results as a whole.

report: analysis.json, and what it names -> report.html, one self-contained page
crate:  report, manifests -> ro-crate-metadata.json
"""


localrules:
    report,
    crate,


rule report:
    """The report: what held, what did not, what was not run."""
    input:
        analysis="<results>/analysis.json",
        runs="<results>/tracking/runs.json",
    output:
        report("<results>/report.html", caption="../report/report.rst", category="Report"),
    log:
        "<logs>/report.log",
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        code=flow.code("report"),
    shell:
        "python -m yarnlab report --study-dir {params.results:q} 2> {log:q}"


rule crate:
    """The results folder as an RO-Crate: every file, and every stage's execution from inputs to outputs."""
    input:
        rules.report.output,
        manifests=flow.manifests(),
    output:
        "<results>/ro-crate-metadata.json",
    log:
        "<logs>/crate.log",
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        code=flow.code("crate"),
    shell:
        "python -m yarnlab crate --study-dir {params.results:q} 2> {log:q}"
