"""A cluster on one machine: for each member a folder with its configuration, its data and its log. `run` and `walk` use it."""

import argparse
import contextlib
import json
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

from servers import Server  # noqa: E402

FIRST = ("a", "b", "c")
LIMIT_S = 30

CONFIG = """\
[server]
listen = "127.0.0.1:{port}"
data_dir = "{folder}/{name}/data"

[dns]
listen = "127.0.0.1:{dns_port}"

[cluster]
member_name = "{name}"
peer_listen = "127.0.0.1:{peer_port}"
join = [{join}]
bootstrap_expect = {expect}
join_token = "{token}"
tls_ca = "{folder}/pki/ca.pem"
tls_cert = "{folder}/pki/{name}.pem"
tls_key = "{folder}/pki/{name}-key.pem"
"""


class Cluster:
    """Members by name. Whatever is done to them is printed as the command that does it."""

    def __init__(self, konsul, folder, port=None):
        self.konsul = konsul
        self.folder = Path(folder).resolve()
        self.ports = iter(range(port, 65536)) if port else free_ports()
        self.token = secrets.token_hex(16)
        self.peers = []
        self.members = {}

    def start(self):
        """Starts the three and waits until one of them leads. In a folder that has them already, they go on with what is there."""
        if not (self.folder / "pki").exists():
            self.make("tls", "ca", "--out", "pki")
            places = {name: self.place() for name in FIRST}
            self.peers = [f"127.0.0.1:{peer_port}" for _, peer_port, _ in places.values()]
            for name, place in places.items():
                self.configure(name, place, expect=len(FIRST))
        for name in FIRST:
            self.start_member(name)
        self.await_members(lambda members: len(voters(members)) >= len(FIRST))

    def join(self, name):
        """Starts another member, which joins the cluster."""
        self.configure(name, self.place(), expect=0)
        self.start_member(name)

    def place(self):
        """Ports for clients, for the other members, and for DNS."""
        return next(self.ports), next(self.ports), next(self.ports)

    def configure(self, name, place, expect):
        self.make("tls", "cert", "--member", name, "--ca", "pki/ca.pem", "--ca-key", "pki/ca-key.pem", "--out", "pki")
        port, peer_port, dns_port = place
        config = CONFIG.format(name=name, folder=self.folder, port=port, peer_port=peer_port, dns_port=dns_port, expect=expect,
                               token=self.token, join=", ".join(f'"{peer}"' for peer in self.peers))
        (self.folder / name).mkdir()
        (self.folder / name / "konsul.toml").write_text(config)

    def start_member(self, name):
        folder = self.folder / name
        server = Server(self.konsul, folder, config=folder / "konsul.toml", apart=True)
        show(f"konsul server --config {name}/konsul.toml 2> {name}/server.log &")
        server.start()
        self.members[name] = server

    def kill(self, name):
        """Ends a member as a crash would."""
        show(f"kill -9 {self.members[name].process.pid}")
        self.members[name].kill()

    def terminate(self, name):
        """Ends a member in order."""
        show(f"kill {self.members[name].process.pid}")
        self.members.pop(name).stop()

    def stop(self):
        """Ends all members, in order."""
        running = [server for server in self.members.values() if server.process.poll() is None]
        for server in running:
            server.process.send_signal(signal.SIGTERM)
        for server in running:
            server.process.wait(timeout=LIMIT_S)

    def wait(self):
        """Waits until a member ends by itself, which none should."""
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        ended = [name for name, server in self.members.items() if server.process.poll() is not None]
        raise Failed(f"{', '.join(ended)} ended by itself; its log is in {self.folder}")

    def export(self):
        """From here on the commands know the members that there are."""
        show(f"export KONSUL_ADDR={self.addresses()}")

    def addresses(self):
        return ",".join(server.address for server in self.members.values())

    def run(self, *arguments, at=None):
        """Runs a command of `konsul` in the cluster's folder and prints what it prints; at one member if it is named."""
        print(self.make(*arguments, *(["--addr", self.members[at].address] if at else [])).rstrip("\n"), flush=True)

    def make(self, *arguments):
        """The same without what it prints, which is returned."""
        show(shlex.join(["konsul", *arguments]))
        done = self.ask(*arguments)
        if done.returncode != 0:
            raise Failed(done.stderr.strip())
        return done.stdout

    def ask(self, *arguments):
        env = {name: value for name, value in os.environ.items() if not name.startswith("KONSUL_")}
        if self.members:
            env["KONSUL_ADDR"] = self.addresses()
        return subprocess.run([self.konsul, *arguments], cwd=self.folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=LIMIT_S, check=False)

    def await_members(self, holds=lambda members: True):
        """Waits until one leads and `holds` is true of the members, as `konsul cluster members` tells them; those members."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            told = self.ask("cluster", "members", "-o", "json", "--timeout", "2s")
            members = json.loads(told.stdout).get("members", []) if told.returncode == 0 else []
            if any(member.get("leader") for member in members) and holds(members):
                return members
            time.sleep(0.05)
        raise Failed(f"the cluster did not come that far in {LIMIT_S} s; the members' logs are in {self.folder}")


def voters(members):
    return [member["name"] for member in members if member["role"] == "MEMBER_ROLE_VOTER"]


def leader(members):
    return next(member["name"] for member in members if member.get("leader"))


class Failed(Exception):
    """A command or a wait that did not succeed; says which in one line."""


def show(command):
    print(f"$ {command}", flush=True)


def free_ports():
    """Ports of no one, below those that the kernel gives to clients: a member must find its own again after a restart."""
    for port in random.sample(range(12_000, 30_000), 1_000):
        if is_free(port):
            yield port


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def started(description):
    """A cluster as the command line asks for it, which is stopped, and removed if its folder is a temporary one, at the end."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--konsul", default=shutil.which("konsul"), help="the konsul to use; default: the one on the PATH")
    parser.add_argument("--dir", help="keep everything in this folder; default: a temporary one that is removed at the end")
    parser.add_argument("--port", type=int, help="take the ports from this one on, three for each member; default: free ones")
    arguments = parser.parse_args()
    if not arguments.konsul or not os.access(arguments.konsul, os.X_OK):
        parser.error(f"no konsul at {arguments.konsul}: build it, or name it with --konsul")
    # Asked to end, it ends the members too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(arguments.dir or tempfile.mkdtemp(prefix="konsul-three-"))
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(os.path.abspath(arguments.konsul), folder, arguments.port)
    try:
        show(f"cd {folder}")
        cluster.start()
        yield cluster
    except KeyboardInterrupt:
        pass
    except (Failed, AssertionError) as reason:
        sys.exit(f"{Path(sys.argv[0]).name}: {reason}")
    finally:
        cluster.stop()
        if not arguments.dir:
            shutil.rmtree(folder)
