"""The paper's tables with our numbers beside the printed ones: what each is called and reads.

All needs are optional: without any results the tables are made all the same, and say 'not run'.
"""

from __future__ import annotations

from yarnlab.results.published.tables import cells, counts, curves, values
from yarnlab.results.registry import Table, add

STATED = ("Abstract", "Section 3.2", "Section 4", "Section 4.1", "Section 4.2", "Section 4.3.3", "Equation 22",
          "Equation 25", "Appendix A.2", "Appendix B.4")  # fmt: skip
FINE_TUNED = tuple(f"emozilla/{name}-Llama-7b-32k" for name in ("Linear", "NTK", "NTK-by-parts", "Yarn"))
EVERYTHING = ("perplexity", "zero_shot", "dynamic", "sliding_window", "passkey", "passkey_official", "benchmarks",
              "temperature", "manifests")  # fmt: skip
PASSKEY = ("passkey_official", "passkey")
CURVES = ("perplexity", "training", "temperature", "dynamic", "sliding_window")
EXTENDED = ("zero_shot", "dynamic", "perplexity")
CAMERA_1, CAMERA_2, CAMERA_4, CAMERA_5 = (f"Camera-ready Table {n}" for n in (1, 2, 4, 5))
ABLATION = "The camera-ready's ablation: LLaMA 7B, 2k to 32k, 400 steps"
ABLATED = (CAMERA_5, "Camera-ready Figure 3", CAMERA_2)

# Name, title, what it reads, and how it is built; in the order of the report.
TABLES = (
    ("verdicts", "Every published number", EVERYTHING, counts),
    ("table_1", "Table 1: extending Llama 2 7B to 8k", ("perplexity", "manifests"), cells("Table 1")),
    ("table_2", "Table 2: long-range perplexity", ("perplexity",), cells("Table 2")),
    ("table_3", "Table 3: short benchmarks", ("benchmarks",), cells("Table 3")),
    ("table_4", "Table 4: GovReport", ("sliding_window",), cells("Table 4")),
    ("table_5", "Table 5: passkey", (*PASSKEY, "manifests"), cells("Table 5")),
    ("table_6", "Table 6: Mistral", ("perplexity",), cells("Table 6")),
    ("camera_ready_table_1", f"{CAMERA_1}: long-range perplexity", ("perplexity",), cells(CAMERA_1)),
    ("camera_ready_table_2", f"{CAMERA_2}: short benchmarks", ("benchmarks",), cells(CAMERA_2)),
    ("camera_ready_table_4", f"{CAMERA_4}: cost", ("manifests",), cells(CAMERA_4)),
    ("camera_ready_table_5", f"{CAMERA_5}: without and with fine-tuning", EXTENDED, cells(CAMERA_5)),
    ("camera_ready_ablation", ABLATION, ("perplexity", *PASSKEY, "benchmarks"), cells(*ABLATED, models=FINE_TUNED)),
    ("stated_values", "Values in the text", ("manifests", "temperature", "benchmarks"), values(*STATED)),
    ("benchmark_results", "The authors' lm-eval results", ("benchmarks",), cells("lm-eval results")),
    ("published_curves", "Every published curve", CURVES, curves),
)
PAPER_NAMES = {f"table_{n}": (f"table_{n}",) for n in range(1, 7)} | {"camera_ready_ablation": ("ablation",)}

for _place, (_name, _title, _needs, _build) in enumerate(TABLES):
    add(
        Table(
            _name,
            _title,
            _needs,
            "published",
            _place,
            build=_build,
            fold=_title if _place else "",
            opened=3 if _place else 1,
            of_paper=True,
            paper_names=PAPER_NAMES.get(_name, ()),
            timed=("GPU-hours ours",),
        )
    )
