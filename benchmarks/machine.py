"""What results were measured on."""

from __future__ import annotations

import os
from typing import Any


def machine() -> dict[str, Any]:
    """Processor, its threads, and the load."""
    from fastbts.engine.backends.openvino import OpenVINOEngine

    name = OpenVINOEngine.package().Core().get_property("CPU", "FULL_DEVICE_NAME")
    load = round(os.getloadavg()[0], 1)
    return {"cpu": str(name).strip(), "n_cpus": os.cpu_count(), "load_at_the_end": load}
