"""A terminal for a command to run on."""

import os
import pty
import re
import subprocess
from fcntl import ioctl
from struct import pack
from termios import TIOCSWINSZ


def on_a_terminal(
    command: list[str], *, columns: int = 100, typed: str = "", **environment: str
) -> tuple[int, str]:
    """Run a command whose input, output and errors are one terminal; return its status and what it wrote.

    `typed` is what somebody types on it, each line ended by `\\n`.
    """
    leader, follower = pty.openpty()
    ioctl(follower, TIOCSWINSZ, pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=os.environ | {"TERM": "xterm-256color"} | environment,
        start_new_session=True,
    )
    os.close(follower)
    os.write(leader, typed.encode())
    written = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not chunk:
            break
        written += chunk
    os.close(leader)
    return process.wait(), written.decode()


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
