"""Builds the wheel for pip, with the standard library alone (PEP 517): pip install ./python works without a network."""

import base64
import hashlib
import pathlib
import re
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "leat/__init__.py").read_text()).group(1)
INFO = f"leat-{VERSION}.dist-info"
METADATA = f"""Metadata-Version: 2.1
Name: leat
Version: {VERSION}
Summary: Datasets for training jobs: what a run of leat tells its job, and downloads
Requires-Python: >=3.9
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: leat\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def _write(folder, files):
    files = {**files, f"{INFO}/METADATA": METADATA, f"{INFO}/WHEEL": WHEEL}
    name = f"leat-{VERSION}-py3-none-any.whl"
    record = ""
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, text in sorted(files.items()):
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text.encode())}\n"
            wheel.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), text)
        wheel.writestr(f"{INFO}/RECORD", record + f"{INFO}/RECORD,,\n")
    return name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    package = [*(HERE / "leat").glob("*.py"), HERE / "leat/py.typed"]
    return _write(wheel_directory, {f"leat/{path.name}": path.read_text() for path in package})


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _write(wheel_directory, {"leat.pth": f"{HERE}\n"})
