"""What a run tells its job in the environment."""

import json
import os
from typing import Any, Dict, Tuple

from ._error import Error

# Ranks that a launcher inside of the run has made; the innermost first.
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)


def _json_object(variable: str) -> Dict[str, Any]:
    text = os.environ.get(variable, "")
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Error(f"{variable} is not a JSON object")
    return value


def data_config() -> Dict[str, Any]:
    """The job file's `data`: {"bucket": "b"} for `data: {bucket: b}`. Empty where there is none."""
    return _json_object("LEAT_DATA_CONFIG")


def mounts() -> Dict[str, str]:
    """What is attached: {"/data": "s3://bucket/prefix"}. Empty outside of a run."""
    return {target: str(source) for target, source in _json_object("LEAT_MOUNTS").items()}


def _place() -> Tuple[int, int]:
    """The rank and the number of processes.

    torchrun's variables first: it is started inside of a run, once a node. Then those of leat, where it has
    made several (replicas) or was started several times itself; then those of other launchers.
    """
    pairs = [("RANK", "WORLD_SIZE")]
    ours = ("LEAT_RANK", "LEAT_WORLD_SIZE")
    if os.environ.get("LEAT_WORLD_SIZE", "1") != "1":
        pairs.append(ours)
    for rank_name, size_name in pairs + list(_LAUNCHERS) + [ours]:
        if rank_name not in os.environ:
            continue
        try:
            return int(os.environ[rank_name]), int(os.environ.get(size_name, "1"))
        except ValueError:
            raise Error(f"{rank_name} and {size_name} are not numbers") from None
    return 0, 1


def rank() -> int:
    """Which of the job's processes this is, from 0; 0 where there is only one."""
    return _place()[0]


def world_size() -> int:
    """How many processes the job has, on all machines; 1 where nobody says."""
    return _place()[1]
