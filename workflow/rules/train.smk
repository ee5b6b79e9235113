"""Models.

train: tokenizer, corpora, parent model -> models/{model}/manifest.json (checkpoint beside it)
"""


rule train:
    """Make one model. A killed job continues from its state, which lies outside the declared outputs."""
    input:
        source=flow.train_source,
        corpora=flow.train_corpora,
    output:
        "<results>/models/{model}/manifest.json",
    log:
        "<logs>/train/{model}.log",
    priority: 10
    conda:
        "../../envs/conda.yaml"
    threads: flow.train_threads
    resources:
        **machine.of_training(),
    params:
        launch=machine.launch_training,
        results=flow.folder,
        spec=flow.spec("train"),
        execution=flow.execution("train"),
        code=flow.code("train"),
    shell:
        "{params.launch} train {wildcards.model} --study-dir {params.results:q}"
        " --spec {params.spec:q} --execution {params.execution:q} --code {params.code:q} --log {log:q}"


rule models:
    """All models."""
    input:
        flow.model_manifests(),
