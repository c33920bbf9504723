SUMMARY = "Default configuration of the device security agent"
DESCRIPTION = "The default defender.toml: every key commented out, with what it does. A product that brings a whole configuration of its \
own writes a recipe like this one and names it in VIRTUAL-RUNTIME_defender-config; one that changes a few keys adds a drop-in."
HOMEPAGE = "https://github.com/defender-project/defender"
BUGTRACKER = "https://github.com/defender-project/defender/issues"
SECTION = "security"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# From the repository this layer is part of, as the agent's source: see defender-source-tree.inc.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext - the tree is outside of this recipe's directory
FILESEXTRAPATHS:prepend := "${THISDIR}/../../..:"
SRC_URI = "file://LICENSE;subdir=${BP} \
           file://rootfs-overlay/etc/defender/defender.toml;subdir=${BP}"

require defender-user.inc

CVE_PRODUCT = "defender-project:defender"

INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install () {
    # May hold credentials of sinks.
    install -d -m 0750 ${D}${sysconfdir}/defender
    install -m 0640 ${S}/rootfs-overlay/etc/defender/defender.toml ${D}${sysconfdir}/defender/defender.toml
    chown -R root:defender ${D}${sysconfdir}/defender
}

CONFFILES:${PN} = "${sysconfdir}/defender/defender.toml"
