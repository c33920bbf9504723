# SPDX-License-Identifier: MIT
#
# Checks the agent's configuration, rules and policies in an image, and that the image has what they ask for. A mistake fails
# do_rootfs with file, line and key; something missing fails it or is a warning, by DEFENDER_CONFIG_MISSING.
#
# Images inherit it, or all do by IMAGE_CLASSES += "defender-config". It also defines the image feature "defender"
# (IMAGE_FEATURES += "defender" installs packagegroup-defender). Images without the agent are left alone.

FEATURE_PACKAGES_defender = "packagegroup-defender"

# What when the image lacks nft, a bus daemon, a writable state directory or a kernel option: fail or warn.
DEFENDER_CONFIG_MISSING ?= "fail"

# Configuration the image's kernel is built with. With DISTRO_FEATURES "defender", linux-yocto deploys it; for another kernel name
# a file, or leave it empty and the options are not looked at.
DEFENDER_KERNEL_CONFIG ?= "${@bb.utils.contains('DISTRO_FEATURES', 'defender', '${DEPLOY_DIR_IMAGE}/defender-kernel.config', '', d)}"

# Not for an initramfs that is to go into the kernel: KERNELDEPMODDEPEND is empty there, and the two would wait for each other.
DEFENDER_KERNEL_DEPENDS = "${@'virtual/kernel:do_deploy' if d.getVar('DEFENDER_KERNEL_CONFIG') and d.getVar('KERNELDEPMODDEPEND') else ''}"
do_rootfs[depends] += "defender-native:do_populate_sysroot ${DEFENDER_KERNEL_DEPENDS}"

def defender_image(d, *arguments):
    """Runs the check program on the root file system; exit code and what it said."""
    import os
    import subprocess
    native = d.getVar('STAGING_BINDIR_NATIVE')
    command = [os.path.join(native, 'defender-image'), arguments[0], d.getVar('IMAGE_ROOTFS'), *arguments[1:]]
    environment = dict(os.environ, DEFENDER=os.path.join(native, 'defender'))
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors='replace')
    return done.returncode, done.stdout.strip()

def defender_in_image(d):
    import os
    return os.path.lexists(d.expand('${IMAGE_ROOTFS}${bindir}/defender'))

python defender_config_check () {
    if not defender_in_image(d):
        return
    arguments = []
    kernel = d.getVar('DEFENDER_KERNEL_CONFIG')
    if kernel and os.path.exists(kernel):
        arguments = ['--kernel-config', kernel]
    elif kernel:
        bb.note("%s does not exist: the kernel's options are not checked. For a kernel of your own set DEFENDER_KERNEL_CONFIG" % kernel)
    code, said = defender_image(d, 'check', *arguments)
    if code == 0:
        return
    missing = d.getVar('DEFENDER_CONFIG_MISSING')
    if missing not in ('fail', 'warn'):
        bb.fatal("DEFENDER_CONFIG_MISSING is fail or warn, not '%s'" % missing)
    if code == 1 and missing == 'warn':
        bb.warn(said)
    else:
        bb.fatal(said)
}

ROOTFS_POSTPROCESS_COMMAND += "defender_config_check"
