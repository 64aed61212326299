"""Fetch a Debian package and unpack it, as any user: ``python fetch.py NAME OUT``.

OUT becomes a folder of the package's files. ``apt-get download`` fetches it from wherever this machine takes packages,
and ``dpkg-deb`` unpacks it; nothing is installed. The data sets here were made of the versions below. Another one is
refused, as it would make others, unless ``--any-version`` says so.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from daukit.errors import DataError, DaukitError
from daukit.files import new_folder

PACKAGES = {
    "dataset-fashion-mnist": (
        "0.0~git20200523.55506a9-1",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    ),
    "gcompris-qt-data": ("3.1-2", "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f"),
    "tuxpaint-stamps-default": (
        "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    ),
}
"""Version and SHA-256 by name."""


def fetch(name: str, out: Path, *, any_version: bool) -> Path:
    """Fetch a package and unpack it into a folder; the result is where its file was, named by its version.

    Raises:
        DataError: a program is missing or fails, or the package is of another version.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise DataError(
                f"{program}: there is no such program, and packages of Debian are fetched by it; run this on Debian or "
                f"Ubuntu, and copy {out} from there"
            )
    with new_folder(out) as folder:
        _run(["apt-get", "download", name], folder, f"{name}: cannot be fetched; does `apt-get update` help?")
        (package,) = folder.glob("*.deb")
        version, digest = PACKAGES[name]
        if not any_version and hashlib.sha256(package.read_bytes()).hexdigest() != digest:
            raise DataError(
                f"{package.name}: is not version {version}, of which the data sets here are made; take it with "
                "--any-version, and expect others"
            )
        _run(["dpkg-deb", "-x", package.name, "."], folder, f"{package.name}: cannot be unpacked")
        package.unlink()
    return out / package.name


def _run(command: list[str], folder: Path, failure: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise DataError(f"{failure} {done.stderr.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PACKAGES, help="the package")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--any-version", action="store_true", help="take another version than the one known")
    given = parser.parse_args()
    package = fetch(given.name, given.out, any_version=given.any_version)
    print(f"{given.out}: {package.name}, unpacked")


if __name__ == "__main__":
    try:
        main()
    except DaukitError as error:
        sys.exit(str(error))
