"""What the discovery examples have in common: HTTP servers to be found, free ports, and waiting until something holds."""

import contextlib
import http.server
import socket
import threading
import time

LIMIT_S = 30


def free_port():
    """A port that nobody listens on, for TCP and UDP."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            port = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", port))
                return port


def until(holds, what, limit_s=LIMIT_S):
    """Waits until `holds()` is true, for things that can't be waited for otherwise: somebody else's program tells nobody."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {limit_s} s")
        time.sleep(0.02)


class Backend:
    """An HTTP server on loopback that answers every request with its name, and `/metrics` with a metric of it."""

    def __init__(self, name):
        self.name = name

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = f'backend_up{{name="{name}"}} 1\n' if self.path == "/metrics" else f"{name}\n"
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
