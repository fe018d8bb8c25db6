"""A running `lapidary serve` for the client tests: started on a free port, always stopped. Standard library only."""
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "lapidary")
READY_SECONDS = 60


class Server:
    """`with Server("--api-key", "k") as server:`. On a failure inside, the server's log is printed."""

    def __init__(self, *flags, program=PROGRAM):
        self.log = tempfile.TemporaryFile(mode="w+b")
        self.process = subprocess.Popen([program, "serve", "--port", "0", *flags],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def __enter__(self):
        try:
            self.url = self._wait(lambda: re.search(r"http://\S+", self.text()), "listening").group()
            self.port = int(self.url.rsplit(":", 1)[1])
            self._wait(self.healthy, "ready")
        except BaseException:
            self.__exit__(AssertionError, None, None)
            raise
        return self

    def __exit__(self, kind, _value, _trace):
        stopped = self.stop()
        if kind is not None or stopped != 0:
            print(f"--- the server's log (exit code {stopped}):\n{self.text()}---", flush=True)
        assert kind is not None or stopped == 0, f"the server ended with code {stopped}"

    def text(self):
        return os.pread(self.log.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def healthy(self):
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=5) as reply:
                return reply.status == 200
        except urllib.error.URLError:
            return False

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def _wait(self, condition, what):
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"the server is not {what}")
