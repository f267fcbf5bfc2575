"""scripts/test counts what really ran, and fails when something did."""

import contextlib
import io
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import steps  # noqa: E402
from steps import Count, Step, count  # noqa: E402

CARGO = """
running 3 tests
test a ... ok
test b ... FAILED
failures:

---- b stdout ----
left 1, right 2

failures:
    b

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s

running 2 tests
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
"""


class Counting(unittest.TestCase):
    def test_cargo_counts_all_test_binaries(self):
        self.assertEqual(count(CARGO, ok=False), Count(3, 1, 1))

    def test_unittest(self):
        self.assertEqual(count("Ran 5 tests in 0.1s\n\nOK\n", ok=True), Count(5))
        self.assertEqual(count("Ran 5 tests in 0.1s\n\nFAILED (failures=1, errors=2, skipped=1)\n", ok=False), Count(1, 3, 1))

    def test_a_check_counts_as_one(self):
        self.assertEqual(count("warning: none\n", ok=True), Count(passed=1))
        self.assertEqual(count("error\n", ok=False), Count(failed=1))

    def test_a_failure_outside_any_test_counts(self):
        self.assertEqual(count("test result: ok. 2 passed; 0 failed; 0 ignored; finished\nerror: killed\n", ok=False), Count(2, 1))

    def test_the_excerpt_has_the_failed_tests_output(self):
        text = steps.excerpt(CARGO + "\n".join(str(n) for n in range(500)))
        self.assertIn("left 1, right 2", text)
        self.assertTrue(text.endswith("\n499"))


class Running(unittest.TestCase):
    def run_steps(self, *chosen):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            ok = steps.run(list(chosen), {}, verbose=False)
        return ok, out.getvalue().splitlines()

    def test_goes_on_after_a_failure_and_ends_with_the_count(self):
        ok, lines = self.run_steps(shell("a", "echo broken; exit 3"), shell("b", "true"))
        self.assertFalse(ok)
        self.assertEqual(lines[-1], "1 passed, 1 failed")
        self.assertIn("broken", lines)
        self.assertIn("failed: a", lines)

    def test_all_pass(self):
        ok, lines = self.run_steps(shell("a", "true"))
        self.assertTrue(ok)
        self.assertEqual(lines[-1], "1 passed, 0 failed")

    def test_a_step_is_not_run_without_what_it_needs(self):
        ok, lines = self.run_steps(shell("a", "false"), Step("b", "works with a", ["true"], needs=["a"]))
        self.assertFalse(ok)
        self.assertEqual(lines[-1], "0 passed, 1 failed, 1 skipped")

    def test_a_step_that_hangs_is_ended(self):
        ok, lines = self.run_steps(shell("a", "sleep 600", limit_s=0))
        self.assertFalse(ok)
        self.assertIn("a was ended: it took longer than 0 s", lines)

    def test_a_step_whose_tool_is_missing_fails(self):
        ok, lines = self.run_steps(Step("a", "needs a tool", ["/nonexistent/tool"]))
        self.assertFalse(ok)
        self.assertIn("/nonexistent/tool: No such file or directory", lines)

    def test_a_step_that_cannot_be_prepared_fails_alone(self):
        def prepare():
            raise RuntimeError("nowhere to get it from")

        ok, lines = self.run_steps(Step("a", "needs a tool", ["true"], prepare=[prepare]), shell("b", "true"))
        self.assertFalse(ok)
        self.assertIn("nowhere to get it from", lines)
        self.assertEqual(lines[-1], "1 passed, 1 failed")


class Choosing(unittest.TestCase):
    def test_a_step_brings_what_it_needs(self):
        listed = [shell("a", "true"), shell("b", "true"), Step("c", "works with a", ["true"], needs=["a"])]
        self.assertEqual([step.name for step in steps.choose(listed, ["c"])], ["a", "c"])
        self.assertEqual([step.name for step in steps.choose(listed, [])], ["a", "b", "c"])


def shell(name, script, limit_s=60):
    return Step(name, "a check", ["sh", "-c", script], limit_s)


if __name__ == "__main__":
    unittest.main()
