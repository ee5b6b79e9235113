"""Text to token ids.

tokenizer: installed packages -> data/tokenizer/manifest.json
corpus:    packages or a dataset, tokenizer -> data/{corpus}/manifest.json
shared:    two corpora -> overlap/{a}--{b}.json
"""


localrules:
    shared,


rule tokenizer:
    """Train the byte-level BPE tokenizer."""
    input:
        ready=ancient("<results>/tracking/ready"),
    output:
        "<results>/data/tokenizer/manifest.json",
    log:
        "<logs>/tokenizer.log",
    priority: 50
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        spec=flow.tokenizer_spec(),
        code=flow.code("tokenizer"),
    shell:
        "python -m yarnlab tokenizer --study-dir {params.results:q}"
        " --spec {params.spec:q} --code {params.code:q} --log {log:q}"


rule corpus:
    """Tokenise one corpus into a memory-mapped array."""
    input:
        tokenizer=flow.corpus_tokenizer,
        dataset=flow.corpus_dataset,
    output:
        "<results>/data/{corpus}/manifest.json",
    log:
        "<logs>/corpus/{corpus}.log",
    priority: 50
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        spec=flow.spec("corpus"),
        code=flow.code("corpus"),
    shell:
        "python -m yarnlab corpus {wildcards.corpus} --study-dir {params.results:q}"
        " --spec {params.spec:q} --code {params.code:q} --log {log:q}"


rule data:
    """All corpora."""
    input:
        [flow.corpus(name) for name in flow.corpora()],


rule shared:
    """Count the text that two corpora share."""
    input:
        lambda wildcards: [flow.corpus(wildcards.a), flow.corpus(wildcards.b)],
    output:
        "<results>/overlap/{a}--{b}.json",
    log:
        "<logs>/overlap/{a}--{b}.log",
    wildcard_constraints:
        a="|".join(flow.corpora()),
        b="|".join(flow.corpora()),
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
    shell:
        "python -m yarnlab overlap {wildcards.a} {wildcards.b} --study-dir {params.results:q} 2>&1 | tee {log:q}"


rule overlap:
    """All pairs of corpora of one tokenizer: what training saw of the held-out text, and two preparations of one text."""
    input:
        flow.overlaps(),
