"""scripts/soak plans its rounds as it says."""

import argparse
import importlib.util
import itertools
import unittest
from importlib.machinery import SourceFileLoader
from pathlib import Path

PATH = Path(__file__).resolve().parent.parent / "soak"
LOADER = SourceFileLoader("soak", str(PATH))
soak = importlib.util.module_from_spec(importlib.util.spec_from_loader("soak", LOADER))
LOADER.exec_module(soak)


def rounds(minutes, members=None, seed=None, most=4):
    arguments = argparse.Namespace(minutes=minutes, members=members, seed=seed)
    return list(itertools.islice(soak.rounds(arguments), most))


class Rounds(unittest.TestCase):
    def test_three_and_five_members_in_turns_and_seeds_that_ascend(self):
        self.assertEqual([(members, seed) for members, seed, _ in rounds(60, seed=7)], [(3, 7), (5, 8), (3, 9), (5, 10)])

    def test_as_many_members_as_asked(self):
        self.assertEqual([members for members, _, _ in rounds(60, members=5)], [5, 5, 5, 5])

    def test_there_is_one_round_at_least_and_no_long_one(self):
        self.assertEqual([seconds for _, _, seconds in rounds(0)], [soak.ROUND_MIN_S])
        self.assertEqual([seconds for _, _, seconds in rounds(60, most=1)], [soak.ROUND_S])

    def test_seeds_differ_unless_given(self):
        self.assertNotEqual(rounds(60, most=1)[0][1], rounds(60, most=1)[0][1])


if __name__ == "__main__":
    unittest.main()
