"""Tables, figures and verdicts from the evaluations' tables; no model is loaded here.

study_json: the study -> study.json (what was planned)
analyse:    everything -> analysis.json (all tables/, figures/ and claims.json, which it names)
table:      evaluations -> tables/{table}.csv, .md, .tex, .json: one table, where it alone is asked for
figure:     evaluations -> figures/{figure}.svg, .png, .html, .json: one figure, likewise
"""

# The paper's numbers, which stand beside ours.
PUBLISHED = flow.published()
TABLES, FIGURES = flow.tables(), flow.figures()


wildcard_constraints:
    table="|".join(TABLES),
    figure="|".join(FIGURES),


localrules:
    study_json,
    analyse,
    table,
    figure,
    tables,
    figures,


rule study_json:
    """The study's models and evaluations, so that a report can also say what was not run."""
    output:
        "<results>/study.json",
    log:
        "<logs>/study_json.log",
    priority: 90  # a report after a failure needs it
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        study=flow.named,
        summary=flow.summary(),
        # Tables and figures that `analyse` wrote have no record of their own: other code makes what they are made of anew.
        code=flow.code("analyse"),
    shell:
        "python -m yarnlab describe {params.study:q} --study-dir {params.results:q} 2> {log:q}"


rule analyse:
    """Every table, figure and claim of the study, with number, interval and n."""
    input:
        study="<results>/study.json",
        manifests=flow.manifests(),
        published=PUBLISHED,
        criteria=flow.criteria(),
    output:
        "<results>/analysis.json",
    log:
        "<logs>/analyse.log",
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        code=flow.code("analyse"),
    shell:
        "python -m yarnlab analyse --study-dir {params.results:q} 2> {log:q}"


rule table:
    """One table."""
    input:
        lambda wildcards: flow.needs(TABLES[wildcards.table]),
        published=PUBLISHED,
    output:
        report(
            "<results>/tables/{table}.csv",
            caption="../report/table.rst",
            category="Tables",
        ),
        multiext("<results>/tables/{table}", ".md", ".tex", ".json"),
    log:
        "<logs>/tables/{table}.log",
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        code=flow.code("analyse"),
    shell:
        "python -m yarnlab table {wildcards.table} --study-dir {params.results:q} 2> {log:q}"


rule figure:
    """One figure."""
    input:
        lambda wildcards: flow.needs(FIGURES[wildcards.figure]),
        published=PUBLISHED,
    output:
        report(
            "<results>/figures/{figure}.svg",
            caption="../report/figure.rst",
            category="Figures",
        ),
        multiext("<results>/figures/{figure}", ".html", ".png", ".json"),
    log:
        "<logs>/figures/{figure}.log",
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        code=flow.code("analyse"),
    shell:
        "python -m yarnlab figure {wildcards.figure} --study-dir {params.results:q} 2> {log:q}"


# What the paper calls its tables and figures, each a target: `snakemake table_2`.
for target, file in paper_targets().items():

    rule:
        name:
            target
        input:
            f"<results>/{file}",


rule tables:
    """All tables, one by one."""
    input:
        expand("<results>/tables/{table}.csv", table=TABLES),


rule figures:
    """All figures, one by one."""
    input:
        expand("<results>/figures/{figure}.svg", figure=FIGURES),
