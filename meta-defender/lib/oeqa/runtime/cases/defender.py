#
# SPDX-License-Identifier: MIT
#
"""The agent in a booted image: TEST_SUITES = "ping ssh defender"."""

import json
import time

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage


class DefenderTest(OERuntimeTestCase):
    def status(self):
        code, output = self.target.run("defender status --json")
        self.assertIn(code, (0, 1), output)
        return json.loads(output)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["defender"])
    def test_armed(self):
        """Armed within half a minute of the first login; what is degraded is told."""
        for _ in range(30):
            status = self.status()
            if status["armed"]:
                break
            time.sleep(1)
        self.assertTrue(status["armed"], status)
        self.logger.info("degraded: %s" % status["degraded"])

    @OETestDepends(["defender.DefenderTest.test_armed"])
    def test_confined(self):
        """The daemon runs as its own user, with no capability beyond those it was given."""
        code, output = self.target.run("cat /proc/$(cat /run/defender/defender.pid)/status")
        self.assertEqual(code, 0, output)
        fields = dict(line.split(":", 1) for line in output.splitlines() if ":" in line)
        uids = fields["Uid"].split()
        self.assertNotIn("0", uids, output)
        # CAP_SYS_ADMIN, CAP_SETUID, CAP_SYS_MODULE (linux/capability.h).
        for forbidden in (21, 7, 16):
            self.assertFalse(int(fields["CapEff"], 16) >> forbidden & 1, output)
        self.assertEqual(fields["NoNewPrivs"].strip(), "1", output)

    @OETestDepends(["defender.DefenderTest.test_armed"])
    def test_sees_and_judges(self):
        """A download piped into a shell is an alert of a shipped rule."""
        self.target.run("sh -c 'wget -q -O - http://127.0.0.1:9/x.sh | sh' 2>/dev/null")
        alerts = ""
        for _ in range(10):
            _, alerts = self.target.run("defender alerts --json")
            if "127.0.0.1:9/x.sh" in alerts:
                return
            time.sleep(1)
        self.fail("no alert about the download: %s" % alerts)

    @OETestDepends(["defender.DefenderTest.test_armed"])
    @OEHasPackage(["nftables"])
    def test_blocks(self):
        """An address is blocked, read back from the kernel, and let through again."""
        code, output = self.target.run("defender block 192.0.2.1 --seconds 60 --reason testimage")
        self.assertEqual(code, 0, output)
        code, output = self.target.run("nft list table inet defender")
        self.assertEqual(code, 0, output)
        self.assertIn("192.0.2.1", output)
        code, output = self.target.run("defender unblock 192.0.2.1")
        self.assertEqual(code, 0, output)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["defender-firewall"])
    @OEHasPackage(["nftables"])
    def test_base_firewall(self):
        """What comes in is dropped unless the product opened it."""
        code, output = self.target.run("nft list chain inet defender_base input")
        self.assertEqual(code, 0, output)
        self.assertIn("policy drop", output)
