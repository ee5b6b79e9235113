"""Tables, figures and verdicts from the evaluations' tables; no model is loaded here.

study_json: the study -> study.json (what was planned)
table:      evaluations -> tables/{table}.csv, .md, .tex
figure:     evaluations -> figures/{figure}.html, .svg, .png
claims:     everything -> claims.json
"""

# The paper's numbers, which stand beside ours.
PUBLISHED = flow.published()


wildcard_constraints:
    table="|".join(TABLE_NEEDS),
    figure="|".join(FIGURE_NEEDS),


rule study_json:
    """The study's models and evaluations, so that a report can also say what was not run."""
    output:
        "<results>/study.json",
    log:
        "<logs>/study_json.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        summary=flow.summary(),
    shell:
        "python -m yarnlab describe --study-dir {params.results:q} --summary {params.summary:q} 2> {log}"


rule table:
    """One table."""
    input:
        lambda wildcards: flow.needs(TABLE_NEEDS[wildcards.table]),
        published=PUBLISHED,
    output:
        report(
            "<results>/tables/{table}.csv",
            caption="../captions/table.rst",
            category="Tables",
        ),
        multiext("<results>/tables/{table}", ".md", ".tex"),
    log:
        "<logs>/tables/{table}.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        code=flow.code("table"),
    shell:
        "python -m yarnlab table {wildcards.table} --study-dir {params.results:q} 2> {log}"


rule figure:
    """One figure."""
    input:
        lambda wildcards: flow.needs(FIGURE_NEEDS[wildcards.figure]),
        published=PUBLISHED,
    output:
        report(
            "<results>/figures/{figure}.svg",
            caption="../captions/figure.rst",
            category="Figures",
        ),
        multiext("<results>/figures/{figure}", ".html", ".png"),
    log:
        "<logs>/figures/{figure}.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        code=flow.code("figure"),
    shell:
        "python -m yarnlab figure {wildcards.figure} --study-dir {params.results:q} 2> {log}"


rule claims:
    """A verdict for every claim, with number, interval, n and criterion."""
    input:
        flow.needs((*KINDS, "training")),
        criteria=flow.criteria(),
    output:
        "<results>/claims.json",
    log:
        "<logs>/claims.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        code=flow.code("claims"),
    shell:
        "python -m yarnlab claims --study-dir {params.results:q} 2> {log}"


# What the paper calls its tables and figures, each a target: `snakemake table_2`.
for target, file in PAPER_TARGETS.items():

    rule:
        name:
            target
        input:
            f"<results>/{file}",


rule tables:
    """All tables."""
    input:
        expand("<results>/tables/{table}.csv", table=TABLE_NEEDS),


rule figures:
    """All figures."""
    input:
        expand("<results>/figures/{figure}.svg", figure=FIGURE_NEEDS),
