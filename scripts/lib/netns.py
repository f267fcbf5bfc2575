"""A network of a test's own: a network namespace with nothing but a loopback, in which the machine's resolver is one that the test starts.

`inside()` runs the whole test once more in there, so that whatever the test starts, and the test itself, is in it.
"""

import os
import subprocess
import sys
from pathlib import Path

MARK = "KONSUL_TEST_NETNS"


def inside():
    """Returns at once within the namespace; outside of it, runs this program in a new one and ends with its exit code."""
    if MARK in os.environ:
        return
    if os.geteuid() != 0:
        sys.exit(f"{sys.argv[0]}: needs root, for a network namespace of its own")
    name = f"konsul-test-{os.getpid()}"
    # What `ip netns exec` puts in the place of /etc/resolv.conf.
    folder = Path("/etc/netns") / name
    folder.mkdir(parents=True)
    try:
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")
        subprocess.run(["ip", "netns", "add", name], check=True)
        try:
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
            env = {**os.environ, MARK: name}
            sys.exit(subprocess.run(["ip", "netns", "exec", name, sys.executable, *sys.argv], env=env, check=False).returncode)
        finally:
            subprocess.run(["ip", "netns", "delete", name], check=True)
    finally:
        (folder / "resolv.conf").unlink()
        folder.rmdir()
