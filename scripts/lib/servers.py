"""Starts a real Konsul for tests that are written in Python, and ends it."""

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path


class Server:
    """A `konsul server` with a data directory of its own, on loopback, on a port that stays the same over restarts.

    With a configuration file, that says where it listens and where its data is. One that is `apart` gets no Ctrl-C of the
    terminal; whoever started it ends it.
    """

    def __init__(self, konsul, folder, listen="127.0.0.1:0", config=None, apart=False):
        self.konsul = konsul
        self.folder = Path(folder)
        self.listen = listen
        self.dns_listen = "127.0.0.1:0"
        self.config = config
        self.apart = apart
        self.process = None

    def start(self, limit_s=20):
        """Starts it and waits until it serves."""
        address_file = self.folder / "address"
        address_file.unlink(missing_ok=True)
        placed = ["--config", str(self.config)] if self.config else ["--data-dir", str(self.folder / "data"), "--listen", self.listen,
                                                                              "--dns-listen", self.dns_listen]
        command = [self.konsul, "server", *placed, "--address-file", str(address_file)]
        env = {**os.environ, "KONSUL_DNS_ADDRESS_FILE": str(self.folder / "dns-address")}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=self.apart)
        deadline = time.monotonic() + limit_s
        while not (address_file.exists() and address_file.read_text().strip()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the server did not start:\n{self.log()}")
            time.sleep(0.01)
        self.listen = address_file.read_text().strip()
        # The same port after a restart, for whoever asks it.
        self.dns_listen = self.dns

    @property
    def dns(self):
        """Where it answers DNS."""
        return (self.folder / "dns-address").read_text().split()[1]

    def run(self, *arguments, text=None, limit_s=20):
        """Runs a client command, which must succeed, and tells what it printed."""
        done = subprocess.run([self.konsul, *arguments], env=self.environment(), input=text, capture_output=True, text=True,
                              timeout=limit_s, check=False)
        if done.returncode != 0:
            raise AssertionError(f"konsul {' '.join(arguments)} failed with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    @property
    def address(self):
        return f"http://{self.listen}"

    def kill(self):
        """Ends it as a crash would."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait(timeout=20)

    def stop(self):
        """Asks it to end, and tells its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def log(self):
        return (self.folder / "server.log").read_text(errors="replace")

    def environment(self):
        """What a client command needs to reach it."""
        path = f"{Path(self.konsul).resolve().parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "KONSUL_ADDR": self.address, "PATH": path}


class Output:
    """The lines that a process prints, as they come; a test can wait for one."""

    def __init__(self, stream):
        self._lines = []
        self._more = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream):
        for line in stream:
            with self._more:
                self._lines.append(line.rstrip("\n"))
                self._more.notify_all()
        stream.close()
        with self._more:
            self._ended = True
            self._more.notify_all()

    def wait_for(self, text, since=0, limit_s=20):
        """The first line from number `since` on that contains the text."""
        return self.wait_for_match(re.compile(re.escape(text)), since, limit_s)

    def wait_for_match(self, pattern, since=0, limit_s=20):
        """The first line from number `since` on in which the pattern is found."""
        deadline = time.monotonic() + limit_s
        with self._more:
            while True:
                found = next((line for line in self._lines[since:] if pattern.search(line)), None)
                if found is not None:
                    return found
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise AssertionError(f"no line with {pattern.pattern!r} in:\n" + "\n".join(self._lines[since:]))
                self._more.wait(left)

    def __len__(self):
        with self._more:
            return len(self._lines)

    def __str__(self):
        with self._more:
            return "\n".join(self._lines)
