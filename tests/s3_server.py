"""An S3 server of the tests' own, on a free port of this machine: moto, in a folder of packages of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from training.config import PROJECT

INSTALLED = PROJECT / ".venv" / "s3"
"""Where `.ci/run` puts the packages of `tests/s3.txt`."""
BUCKET = "bucket"
SECRET = "qX7Secret"


class S3Server:
    """A server that keeps its objects in memory."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        """By which pyarrow finds it."""
        self.start()

    def start(self) -> None:
        """Start it, with an empty bucket."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            env=os.environ | {"PYTHONPATH": str(INSTALLED)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.05)
        self._request("PUT", BUCKET)

    def stop(self) -> None:
        """Kill it; what it had is lost."""
        self._process.kill()
        self._process.wait()

    def refuse_everybody(self, refuse: bool) -> None:
        """Ask for credentials, and know none; or ask no more."""
        self._request("POST", "moto-api/reset-auth", b"0" if refuse else b"inf")

    def objects(self, path: str = "path") -> dict[str, int]:
        """The size of each object below a path of the bucket, by name, as the server tells it to anybody."""
        from xml.etree import ElementTree

        page = ElementTree.fromstring(self._request("GET", f"{BUCKET}?prefix={path}/&max-keys=1000"))
        space = page.tag.removesuffix("ListBucketResult")
        found = ((one.findtext(f"{space}Key"), one.findtext(f"{space}Size")) for one in page.iter(f"{space}Contents"))
        return {
            str(name).removeprefix(f"{path}/"): int(size or 0) for name, size in found if not str(name).endswith("/")
        }

    def put(self, name: str, content: bytes = b"x") -> None:
        """Put an object there."""
        self._request("PUT", f"{BUCKET}/{name}", content)

    def _answers(self) -> bool:
        try:
            self._request("GET", "")
        except OSError:
            return False
        return True

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(
            f"{self.url}/{path}", method=method, data=body, headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())


def is_installed() -> bool:
    """Whether there is a server to start."""
    return Path(INSTALLED, "moto").is_dir()
