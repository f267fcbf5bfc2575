"""scripts/readme-tour runs what a README says, and fails when it does not come true."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOUR = Path(__file__).resolve().parent.parent / "readme-tour"


class ReadmeTour(unittest.TestCase):
    def tour(self, block):
        """The exit code and the output of a README whose tour has this block."""
        with tempfile.NamedTemporaryFile("w", suffix=".md") as readme:
            readme.write(f"# K\n\n## A two-minute tour\n\n```sh\n{block}\n```\n\n## Next\n\n```sh\nfalse\n```\n")
            readme.flush()
            done = subprocess.run([sys.executable, TOUR, "--konsul", "/bin/true", "--readme", readme.name],
                                  env={**os.environ, "KONSUL_TEST_TOUR_LIMIT_S": "2"}, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def test_what_works(self):
        code, output = self.tour("echo good day\n# good …\nprintf a \\\n  b\ncat <<E\n# not an expectation\nE")
        self.assertEqual((code, output.splitlines()[-1]), (0, "3 commands of the tour work"), output)

    def test_a_command_does_not_eat_the_next(self):
        code, output = self.tour("cat\necho next\n# next")
        self.assertEqual(code, 0, output)

    def test_the_printing_of_a_background_job_is_awaited(self):
        code, output = self.tour("(read -t 0.2 < <(sleep 1); echo late) &\n# late")
        self.assertEqual(code, 0, output)

    def test_a_command_that_fails(self):
        code, output = self.tour("false")
        self.assertEqual(code, 1)
        self.assertIn("exit code 1", output)

    def test_an_output_that_does_not_come(self):
        code, output = self.tour("echo good\n# bad")
        self.assertEqual(code, 1)
        self.assertIn("no line with 'bad'", output)


if __name__ == "__main__":
    unittest.main()
