"""Asks llama.cpp for the log-probabilities of the next token; run as a program by the tests.

    python llama_cpp.py OUT IDS LENGTHS MODEL.gguf…

IDS and LENGTHS are JSON lists; OUT gets {file: {length: [log-probability by token id]}}. The cache is in fp32, since
llama.cpp's usual one rounds keys and values to 16 bits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def probabilities(file: str, ids: list[int], lengths: list[int]) -> dict[int, list[float]]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx = params.n_batch = params.n_ubatch = 256
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = params.fit_params = params.cache_prompt = False
    params.port = 0  # any that is free
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server, found = xllamacpp.Server(params), {}
    for length in lengths:
        asked = {"prompt": ids[:length], "n_predict": 1, "n_probs": 96, "temperature": 0.0, "cache_prompt": False}
        said = server.handle_completions(asked)
        top = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        by_id = {each["id"]: each["logprob"] for each in top}
        found[length] = [by_id[token] for token in range(96)]
    return found


def main(out: str, ids: str, lengths: str, *files: str) -> None:
    found = {file: probabilities(file, json.loads(ids), json.loads(lengths)) for file in files}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
