"""leat for the code of a training job: its datasets, where it runs, and downloads.

    import leat

    bucket = leat.data_config()["bucket"]
    folder = leat.download(f"s3://{bucket}/train", f"/tmp/data-rank{leat.rank()}")

Inside of `leat run` the leat that runs the job does the downloading, with its credentials and its cache;
elsewhere the program `leat` does. docs/python.md tells more.
"""

from ._download import download
from ._environment import data_config, mounts, rank, world_size
from ._error import Error

__version__ = "0.1.0"
__all__ = ["Error", "data_config", "download", "mounts", "rank", "world_size"]
