"""report:  everything -> report.html, one self-contained page
crate:   report, manifests -> ro-crate-metadata.json
compare: two studies' results -> results/comparisons/A--B/comparison.html, .md, .csv
gallery: report.html -> the README's two pictures and its block of results
"""


rule report:
    """The report: what held, what did not, what was not run."""
    input:
        analysis="<results>/analysis.json",
        runs="<results>/tracking/runs.json",
    output:
        report("<results>/report.html", caption="../captions/report.rst", category="Report"),
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


rule crate:
    """The results folder as an RO-Crate: every file, and every stage's execution from inputs to outputs."""
    input:
        rules.report.output,
        manifests=flow.manifests(),
    output:
        "<results>/ro-crate-metadata.json",
    log:
        "<logs>/crate.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        code=flow.code("crate"),
    shell:
        "python -m yarnlab crate --study-dir {params.results:q} 2> {log}"


rule compare:
    """Two finished studies side by side: `snakemake compare --config first=STUDY second=STUDY` (or results folders)."""
    log:
        "results/comparisons/compare.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        a=str(config.get("first", "micro")),
        b=str(config.get("second", "smoke")),
    shell:
        "python -m yarnlab compare {params.a:q} {params.b:q} 2>&1 | tee {log}"


rule gallery:
    """The README's pictures and results, from this study's report; asked for by name only."""
    input:
        rules.report.output,
    log:
        "<logs>/gallery.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
    shell:
        "python -m yarnlab gallery --study-dir {params.results:q} 2>&1 | tee {log}"
