"""A PostgreSQL server of the tests' own, on a free port of this machine."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

SECRET = "Tr0ub4dor"
"""The part of the password that is written the same everywhere."""
PASSWORD = f"@{SECRET}:/ %{{}}"
USER = "tunesmith"


def programs() -> Path | None:
    """Folder of the server's programs, of the newest version where there are more; None where there is none."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else Path("/usr/lib/postgresql").glob("*/bin")
    return max(found, key=lambda folder: folder.parent.name.zfill(4), default=None)


class PostgreSQL:
    """A server that asks for a password, in a folder that is gone when it is."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="ts-postgresql-", dir="/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        password_file = self._folder / "password"
        password_file.write_text(PASSWORD)
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            for path in (self._folder, password_file):
                shutil.chown(path, "postgres")
        options = [f"--username={USER}", f"--pwfile={password_file}", "--auth=scram-sha-256", "--no-sync"]
        self._run("initdb", f"--pgdata={self._folder / 'data'}", *options)
        self.start()

    def address(self, database: str = "postgres", *, password: str | None = PASSWORD, user: str = USER) -> str:
        """What `--storage` is given."""
        who = user if password is None else f"{user}:{quote(password, safe='')}"
        return f"postgresql://{who}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it; returns when it answers."""
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self._folder} -c fsync=off"
        )
        self._control("start", "--wait", f"--log={self._folder / 'log'}", f"--options={options}")

    def stop(self) -> None:
        """Stop it as a power cut would."""
        self._control("stop", "--mode=immediate")

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self.stop()
        shutil.rmtree(self._folder)

    def _control(self, *words: str) -> None:
        self._run("pg_ctl", f"--pgdata={self._folder / 'data'}", *words)

    def _run(self, program: str, *words: str) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*as_user, str(self._programs / program), *words]
        # not a pipe: the server would keep it open
        subprocess.run(command, check=True, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
