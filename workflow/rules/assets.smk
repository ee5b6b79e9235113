"""Downloads, the only jobs that use the network.

asset: the hub, config/hub.lock.yaml -> assets/{asset}/manifest.json (the repository's files beside it)
"""


localrules:
    asset,


rule asset:
    """Fetch one pinned repository and verify every byte; what is there and right is kept."""
    input:
        ready=ancient("<results>/tracking/ready"),
    output:
        "<results>/assets/{asset}/manifest.json",
    log:
        "<logs>/assets/{asset}.log",
    priority: 60
    conda:
        "../../envs/conda.yaml"
    params:
        results=flow.folder,
        spec=flow.spec("asset"),
        code=flow.code("asset"),
    shell:
        'HF_HUB_OFFLINE="$YARNLAB_ASSETS_OFFLINE" python -m yarnlab asset {wildcards.asset} --study-dir {params.results:q}'
        " --spec {params.spec:q} --code {params.code:q} --log {log:q}"


rule assets:
    """All downloads."""
    input:
        flow.asset_manifests(),
