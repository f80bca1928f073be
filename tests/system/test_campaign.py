"""A short campaign of kills and faults against real servers; ``python -m tests.soak.campaign`` is the long one."""

from __future__ import annotations

import io
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from testing.directories import short_directory
from tests.soak import campaign
from tests.soak.campaign import Campaign
from tests.soak.campaign_clients import EPOCH, Fate, Told

ROUNDS = 5


class CampaignTests(SynchronousTestCase):
    """What is acknowledged is on both servers, in order, whatever dies."""

    def check(self, seed: int) -> Campaign:
        """Run some rounds."""
        with Campaign(short_directory(self), seed) as run:
            for _ in range(ROUNDS):
                run.run_round()
            problems = run.finish()
        self.assertEqual(problems, [], f"{run.summary()}\nrun `python -m tests.soak.campaign --seed {seed} --keep`")
        fates = {told.fate for writer in run.writers for told in writer.told.values()}
        self.assertLessEqual({Fate.ACKNOWLEDGED, Fate.UNKNOWN}, fates)
        return run

    def test_kill(self) -> None:
        """The relay is killed, and one backend is refusing or hanging."""
        self.assertGreater(self.check(1).counts["kill -9 relay"], 2)

    def test_kill_all(self) -> None:
        """A server is killed or frozen, too."""
        counts = self.check(2).counts
        self.assertGreater(
            sum(counts[f"{harm} {name}"] for harm in ("kill -9", "SIGSTOP") for name in ("one", "two")), 0
        )


class NoticeTests(SynchronousTestCase):
    """The campaign would notice."""

    def problems(self, *changes: tuple[str, int, int | None]) -> list[str]:
        """Change what a server has behind everybody's back, and return what is found.

        :param changes: a server's name, the number of a write, and what its shared point has instead; None: its own
            point is missing.
        """
        with Campaign(short_directory(self), 1, writers=1) as run:
            (writer,) = run.writers
            while len(writer.told) < 5:
                run.over.wait(0.05)
            run.over.set()
            writer.join()
            for name, number, value in changes:
                told = writer.told.get(number) or Told(number, 0, poisoned=False, fate=Fate.ACKNOWLEDGED, words="")
                writer.told[number] = told
                if value is not None:
                    stamp = (EPOCH + told.round) * 1_000_000_000
                    run.servers[name].write(f"shared,w=0 v={value}i {stamp}\n", writer.place["db"])
            return run.finish()

    def test_missing(self) -> None:
        """A write that was acknowledged and is nowhere."""
        found = self.problems(("one", 999, None))
        self.assertEqual(len([each for each in found if "missing" in each and "number=999" in each]), 2, found)

    def test_older(self) -> None:
        """A shared point that has an older number on one server."""
        (found,) = self.problems(("two", 1, 1))
        self.assertIn("server two, writer 0", found)
        self.assertIn("ended with 1 ", found)


class CommandLineTests(SynchronousTestCase):
    """``python -m tests.soak.campaign``."""

    def test_one_round(self) -> None:
        """It tells its seed, what it did, and that nothing is wrong."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(tempfile, "tempdir", short_directory(self))
        self.assertEqual(campaign.main(["--rounds", "1", "--seed", "3"]), 0, out.getvalue())
        text = out.getvalue()
        self.assertIn("seed 3", text)
        self.assertIn("acknowledged", text)
        self.assertTrue(text.endswith("nothing is wrong\n"), text)
