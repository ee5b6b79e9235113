"""Evaluations: one rule for each kind, one job for each model, all lengths, tasks or RoPE variants inside the job.

KIND: model, corpus -> evaluations/KIND/{model}.manifest.json (its table, and per-token NLL, beside it)
"""

for kind in KINDS:

    rule:
        name:
            kind
        input:
            model="<results>/models/{model}/manifest.json",
            corpus=flow.evaluation_corpus(kind),
            datasets=flow.evaluation_datasets(kind),
        output:
            f"<results>/evaluations/{kind}/{{model}}.manifest.json",
        log:
            f"<logs>/{kind}/{{model}}.log",
        conda:
            "../../envs/conda.yaml"
        threads: flow.evaluation_threads(kind)
        resources:
            **machine.of_evaluation(kind),
        params:
            launch=machine.launch_evaluation,
            kind=kind,
            results=flow.folder,
            spec=flow.spec(kind),
            execution=flow.execution(kind),
            code=flow.code(kind),
        shell:
            "{params.launch} evaluate {params.kind} {wildcards.model} --study-dir {params.results:q}"
            " --spec {params.spec:q} --execution {params.execution:q} --code {params.code:q} --log {log:q}"


rule evaluations:
    """All evaluations."""
    input:
        flow.evaluation_manifests(*KINDS),
