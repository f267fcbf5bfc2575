"""The patches of tests/mutants still are of the code as it is."""

import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


class Mutants(unittest.TestCase):
    def test_every_patch_applies(self):
        patches = sorted((ROOT / "tests" / "mutants").glob("*.patch"))
        self.assertGreaterEqual(len(patches), 12)
        for patch in patches:
            with self.subTest(patch.name):
                checked = subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT, capture_output=True, text=True, check=False)
                self.assertEqual((checked.returncode, checked.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
