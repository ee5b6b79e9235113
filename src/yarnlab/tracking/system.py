"""What the machine does while a stage runs, sampled into tracking/system/<record>.jsonl under MLflow's own names.

MLflow's sampler would import MLflow into every stage and lose what a server does not take. Samples on disk are sent
with all the rest.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from yarnlab.tracking.records import system_file

_INTERVAL_S = 10.0


@contextmanager
def sampled(study_dir: Path, record: str) -> Iterator[None]:
    """Append a sample every ten seconds and when the block ends; none where that cannot be written."""
    ended, file = threading.Event(), system_file(study_dir, record)

    def sample_until_the_end() -> None:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            last = False
            while not last:
                last = ended.wait(_INTERVAL_S)
                with open(file, "a", encoding="utf-8") as lines:
                    lines.write(json.dumps({"time": round(time.time(), 3), **_sample()}) + "\n")

    sampler = threading.Thread(target=sample_until_the_end, daemon=True)
    sampler.start()
    try:
        yield
    finally:
        ended.set()
        sampler.join(5)


def _sample() -> dict[str, float]:
    """CPU use since the last sample (%), memory in use (MB, %), and each NVIDIA GPU's, where nvidia-ml-py is there."""
    import psutil

    memory = psutil.virtual_memory()
    values = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": round(memory.used / 1e6, 1),
        "system/system_memory_usage_percentage": memory.percent,
    }
    with suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        for i in range(pynvml.nvmlDeviceGetCount()):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(i)
            used = pynvml.nvmlDeviceGetMemoryInfo(gpu)
            values[f"system/gpu_{i}_utilization_percentage"] = pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu
            values[f"system/gpu_{i}_memory_usage_megabytes"] = round(used.used / 1e6, 1)
            values[f"system/gpu_{i}_memory_usage_percentage"] = round(100 * used.used / used.total, 1)
    return values
