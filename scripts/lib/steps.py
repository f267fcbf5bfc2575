"""Runs the steps of scripts/test one after the other, counts what passed and failed, and tells what went wrong.

A step is a command. What it counts for is read from its output where a test runner says so (cargo test, unittest); any other
step counts as one.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

TAIL_LINES = 40
FAILURE_LINES = 400

CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;", re.M)
UNITTEST_RAN = re.compile(r"^Ran (\d+) tests? in [\d.]+s$", re.M)
UNITTEST_FAILED = re.compile(r"\b(?:failures|errors|unexpected successes)=(\d+)")
UNITTEST_SKIPPED = re.compile(r"\bskipped=(\d+)")
# What a step measured, and a reader wants to see of a step that passed too.
FIGURE = re.compile(r"^figure: (.*)$", re.M)
# Where cargo's test harness shows the output of the tests that failed.
CARGO_FAILURES = re.compile(r"^failures:\n.*?^test result: FAILED.*?$", re.M | re.S)


@dataclass
class Step:
    """One thing that scripts/test checks."""

    name: str
    what: str
    command: list
    limit_s: int = 600
    # Called before the command, to install what it needs. May raise MissingTool.
    prepare: list = field(default_factory=list)
    # Names of the steps whose outcome it works with; they are run before it, also when only it was asked for.
    needs: list = field(default_factory=list)


@dataclass
class Count:
    """How many tests (or checks) passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self):
        text = f"{self.passed} passed, {self.failed} failed"
        return f"{text}, {self.skipped} skipped" if self.skipped else text


def count(output, ok):
    """What a step's output says about its tests. A step that failed counts at least one failure, whatever it printed."""
    total = Count()
    for passed, failed, ignored in CARGO_RESULT.findall(output):
        total += Count(int(passed), int(failed), int(ignored))
    for ran in UNITTEST_RAN.finditer(output):
        verdict = output[ran.end():].lstrip().split("\n", 1)[0]
        failed = sum(int(n) for n in UNITTEST_FAILED.findall(verdict))
        skipped = sum(int(n) for n in UNITTEST_SKIPPED.findall(verdict))
        total += Count(int(ran.group(1)) - failed - skipped, failed, skipped)
    if ok:
        return total if total != Count() else Count(passed=1)
    return total if total.failed else total + Count(failed=1)


def choose(steps, names):
    """The steps of these names and those that they need; all steps when no names are given."""
    wanted = {step.name for step in steps if not names or step.name in names}
    for step in reversed(steps):
        if step.name in wanted:
            wanted.update(step.needs)
    return [step for step in steps if step.name in wanted]


def run(steps, env, verbose):
    """Runs all steps, prints a line for each and the end of the output of those that failed. True when all passed."""
    logs = Path(tempfile.mkdtemp(prefix="konsul-test-"))
    total, failed, began = Count(), [], time.monotonic()
    for step in steps:
        print(f"== {step.name}: {step.what}", flush=True)
        missing = [need.name for need, _ in failed if need.name in step.needs]
        if missing:
            print(f"   not run: it works with what {missing[0]} leaves", flush=True)
            total += Count(skipped=1)
            continue
        log = logs / f"{step.name}.log"
        since = time.monotonic()
        ok = _run_step(step, env, log, verbose)
        output = log.read_text(errors="replace")
        counted = count(output, ok)
        total += counted
        for figure in FIGURE.findall(output):
            print(f"   {figure}", flush=True)
        verdict = "ok" if ok else "FAILED"
        tests = f", {counted}" if counted.passed + counted.failed + counted.skipped > 1 else ""
        print(f"   {verdict} after {time.monotonic() - since:.1f} s{tests}", flush=True)
        if ok:
            log.unlink()
        else:
            failed.append((step, log))
    for step, log in failed:
        print(f"\n---- {step.name} failed; its whole output is in {log}")
        print(excerpt(log.read_text(errors="replace")))
    if failed:
        print(f"\nfailed: {' '.join(step.name for step, _ in failed)}")
    else:
        logs.rmdir()
    print(f"\n{len(steps)} steps in {time.monotonic() - began:.0f} s")
    print(total, flush=True)
    return not failed


def excerpt(output):
    """What to show of a failed step: the failed tests' own output where cargo gives it, and the last lines."""
    lines = []
    for block in CARGO_FAILURES.findall(output):
        lines += block.splitlines()
    if len(lines) > FAILURE_LINES:
        lines = lines[:FAILURE_LINES] + [f"… {len(lines) - FAILURE_LINES} more lines"]
    return "\n".join(lines + output.splitlines()[-TAIL_LINES:])


def _run_step(step, env, log, verbose):
    with log.open("w") as out:
        try:
            for prepare in step.prepare:
                prepare()
        except Exception as reason:  # Whatever keeps a step from being prepared fails that step, not the run.
            out.write(f"{reason}\n")
            return False
        return _run_command(step, {**env, "PATH": os.environ["PATH"]}, out, verbose)


def _run_command(step, env, out, verbose):
    """Runs the command in a process group of its own, which ends with it, or at its time limit, or with us."""
    try:
        process = subprocess.Popen(step.command, env=env, stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=subprocess.STDOUT, start_new_session=True)
    except OSError as reason:
        out.write(f"{step.command[0]}: {reason.strerror}\n")
        return False
    shown = 0
    deadline = time.monotonic() + step.limit_s
    try:
        while process.poll() is None:
            if time.monotonic() > deadline:
                out.write(f"\n{step.name} was ended: it took longer than {step.limit_s} s\n")
                return False
            _wait(process)
            if verbose:
                shown = _show(out.name, shown)
    finally:
        _end_group(process)
        if verbose:
            _show(out.name, shown)
    return process.returncode == 0


def _wait(process):
    try:
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        pass


def _show(path, offset):
    with open(path, "rb") as log:
        log.seek(offset)
        text = log.read()
    sys.stdout.buffer.write(text)
    sys.stdout.flush()
    return offset + len(text)


def _end_group(process):
    """Ends what is left of a step: asked first, so that it can end what it started in sessions of their own."""
    for how, patience_s in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, how)
            process.wait(patience_s)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
