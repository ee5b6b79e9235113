"""Evaluations: one job for each model, all lengths or RoPE variants inside it.

perplexity: model, corpus -> evaluations/perplexity/{model}.manifest.json (table and per-token NLL beside it)
zero_shot:  model, corpus -> evaluations/zero_shot/{model}.manifest.json
passkey:    model, corpus -> evaluations/passkey/{model}.manifest.json
"""


rule perplexity:
    """Perplexity at every length, in one pass over each document."""
    input:
        flow.evaluation_inputs("perplexity"),
    output:
        "<results>/evaluations/perplexity/{model}.manifest.json",
    log:
        "<logs>/perplexity/{model}.log",
    conda:
        "../../envs/conda.yaml"
    threads: flow.evaluation_threads("perplexity")
    params:
        results=flow.folder,
        spec=flow.spec("perplexity"),
        code=flow.code("perplexity"),
    shell:
        "python -m yarnlab perplexity {wildcards.model} --study-dir {params.results:q}"
        " --spec {params.spec:q} --code {params.code:q} --log {log:q}"


rule zero_shot:
    """Methods x scales without fine-tuning."""
    input:
        flow.evaluation_inputs("zero_shot"),
    output:
        "<results>/evaluations/zero_shot/{model}.manifest.json",
    log:
        "<logs>/zero_shot/{model}.log",
    conda:
        "../../envs/conda.yaml"
    threads: flow.evaluation_threads("zero_shot")
    params:
        results=flow.folder,
        spec=flow.spec("zero_shot"),
        code=flow.code("zero_shot"),
    shell:
        "python -m yarnlab zero-shot {wildcards.model} --study-dir {params.results:q}"
        " --spec {params.spec:q} --code {params.code:q} --log {log:q}"


rule passkey:
    """Passkey retrieval by teacher forcing."""
    input:
        flow.evaluation_inputs("passkey"),
    output:
        "<results>/evaluations/passkey/{model}.manifest.json",
    log:
        "<logs>/passkey/{model}.log",
    conda:
        "../../envs/conda.yaml"
    threads: flow.evaluation_threads("passkey")
    params:
        results=flow.folder,
        spec=flow.spec("passkey"),
        code=flow.code("passkey"),
    shell:
        "python -m yarnlab passkey {wildcards.model} --study-dir {params.results:q}"
        " --spec {params.spec:q} --code {params.code:q} --log {log:q}"


rule evaluations:
    """All evaluations."""
    input:
        flow.evaluation_manifests("perplexity", "zero_shot", "passkey"),
