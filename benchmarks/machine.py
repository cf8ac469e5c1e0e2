"""What was measured on, and with which versions: a figure without them says nothing."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = [
    *("torch", "tensorflow", "keras", "numpy", "pandas", "pyarrow", "dvc", "ray"),
    *("lenskit", "scikit-surprise", "cornac", "myfm"),  # the peers
]


def describe_machine() -> dict[str, str | float]:
    """The processor, its cores that this process may use, the memory, and how busy it is: 0 is idle."""
    information = Path("/proc/cpuinfo")  # Linux's; elsewhere `platform` knows
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        "memory_gib": round(memory / 2**30),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
    }


def list_versions() -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
