"""unbound as a machine's resolver, with the configuration of examples/unbound, in the network namespace of a test."""

import subprocess
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "unbound" / "unbound.conf"


class Resolver:
    """A real unbound on 127.0.0.1:53 that forwards `konsul.` to where Konsul answers DNS."""

    def __init__(self, folder, dns):
        # Nothing of the machine's own, and Konsul where it is.
        own = 'server:\n    username: ""\n    chroot: ""\n    pidfile: ""\n    use-syslog: no\n    do-daemonize: no\n'
        config = Path(folder) / "unbound.conf"
        config.write_text(CONFIG.read_text().replace("127.0.0.1@8600", dns.replace(":", "@")) + own)
        with open(Path(folder) / "unbound.log", "wb") as log:
            self.process = subprocess.Popen(["unbound", "-d", "-c", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=20)
