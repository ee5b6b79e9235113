"""The paper's tables with our numbers beside the printed ones."""

from __future__ import annotations

from yarnlab.lazy import pd
from yarnlab.results.display import DisplayTable
from yarnlab.results.published.published import PUBLISHED, PublishedTable
from yarnlab.results.registry import Build, table
from yarnlab.results.results import Results

PAPER_NAMES = {**{f"table_{i}": (f"table_{i}",) for i in range(1, 7)}, "camera_ready_ablation": ("ablation",)}


def _build(published: PublishedTable) -> Build:
    def build(results: Results) -> tuple[pd.DataFrame, list[DisplayTable]]:
        frame = published.build(results)
        return frame, published.show(results, frame) if len(frame) else []

    return build


for _place, _published in enumerate(PUBLISHED.values()):
    table(
        _published.title,
        name=_published.name,
        needs=_published.needs,
        section="published",
        place=_place,
        fold=_published.title if _place else "",
        opened=3 if _place else 1,
        of_paper=True,
        paper_names=PAPER_NAMES.get(_published.name, ()),
    )(_build(_published))
