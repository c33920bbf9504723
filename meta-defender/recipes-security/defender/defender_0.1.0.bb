SUMMARY = "Device security agent: sees, judges, blocks and reports on the device"
SUMMARY:${PN}-hardening = "Kernel parameters and sshd options that the posture policies ask for"
SUMMARY:${PN}-strict = "Drop-in of systemd that takes from the agent what it can do without"
SUMMARY:${PN}-firewall = "Base firewall ruleset: drop by default, loaded before the network comes up"
DESCRIPTION = "A small daemon that watches processes and logins, judges them by Sigma rules on the device, blocks attackers \
through nftables and reports OCSF events to files, syslog, MQTT and D-Bus."
HOMEPAGE = "https://github.com/defender-project/defender"
BUGTRACKER = "https://github.com/defender-project/defender/issues"
SECTION = "security"
# The agent's own, and those of the crates linked into it (where a crate offers a choice, MIT or Apache-2.0 is taken).
LICENSE = "Apache-2.0 & ISC & MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

require defender-source-tree.inc
require defender-crates.inc

SRC_URI += "file://run-ptest"

inherit cargo pkgconfig systemd update-rc.d features_check ptest
require defender-user.inc

ANY_OF_DISTRO_FEATURES:class-target = "systemd sysvinit"

CVE_PRODUCT = "defender-project:defender"

def defender_unsupported(d):
    """Why the agent cannot be built for this machine, with what to change; nothing where it can."""
    libc = d.getVar('TCLIBC')
    if libc not in ('glibc', 'musl'):
        return "it needs glibc or musl, and TCLIBC is '%s': set TCLIBC to one of them, or leave the agent out of the image" % libc
    known = ('aarch64', 'arm', 'i586', 'i686', 'loongarch64', 'powerpc64', 'powerpc64le', 'riscv64', 'x86_64')
    architecture, tune = d.getVar('TARGET_ARCH'), (d.getVar('TUNE_FEATURES') or '').split()
    old = [feature for feature in tune if architecture == 'arm' and feature.startswith(('armv4', 'armv5'))]
    if architecture not in known or old:
        return "it needs 64-bit atomics and a standard library of Rust, and TARGET_ARCH is '%s'%s: choose a MACHINE " \
               "with one of %s (ARM from ARMv6 on), or leave the agent out of the image" \
               % (architecture, ' with ' + old[0] if old else '', ', '.join(known))
    return None

# Said for whatever asks for the agent, as the reason why nothing provides it.
# nooelint: oelint.task.noanonpython - only while parsing can a recipe be skipped with a reason
python () {
    if not bb.data.inherits_class('native', d):
        unsupported = defender_unsupported(d)
        if unsupported:
            raise bb.parse.SkipRecipe(unsupported)
}

# Optional sinks. Leaving one out leaves its code and its crates out.
PACKAGECONFIG ??= "dbus ebpf mqtt tls"
# On the build host it checks configurations and images; TLS is there for the checks of certificates.
PACKAGECONFIG:class-native ??= "tls"
PACKAGECONFIG[dbus] = "--features dbus,,,dbus"
# The MQTT crate links OpenSSL whether or not the other sinks use TLS.
PACKAGECONFIG[mqtt] = "--features mqtt"
# Without effect but on little-endian machines; tested on x86-64, AArch64, i686 and ARMv7.
PACKAGECONFIG[ebpf] = "--features ebpf"
# Compiles the eBPF programs during the build; the source brings them compiled. clang-native is in OE-Core or meta-clang.
PACKAGECONFIG[ebpf-clang] = ",,clang-native"
export DEFENDER_EBPF_CLANG = "${@bb.utils.contains('PACKAGECONFIG', 'ebpf-clang', 'clang', '', d)}"
PACKAGECONFIG[tls] = "--features tls,,openssl"

# One member of the workspace; the others of its members are libraries of it, or host tools.
CARGO_BUILD_FLAGS += "-p defender --no-default-features"

SYSTEMD_PACKAGES = "${PN} ${PN}-firewall"
SYSTEMD_SERVICE:${PN} = "defender.service"
SYSTEMD_SERVICE:${PN}-firewall = "defender-firewall.service"

# The firewall in rcS, before any interface is configured; the agent after dbus (02) and syslog (20).
INITSCRIPT_PACKAGES = "${PN} ${PN}-firewall"
INITSCRIPT_NAME:${PN} = "defender"
INITSCRIPT_PARAMS:${PN} = "start 21 2 3 4 5 . stop 79 0 1 6 ."
INITSCRIPT_NAME:${PN}-firewall = "defender-firewall"
INITSCRIPT_PARAMS:${PN}-firewall = "start 37 S ."

DEFENDER_INIT = "${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'systemd', '', d)} \
                 ${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', 'sysvinit', '', d)}"

# Everything of rootfs-overlay/ that this image has a use for, by pattern: a new file there needs no change here.
# tests/tests/packaging.rs runs this and Buildroot's counterpart and compares the trees.
defender_install_overlay () {
    cd ${S}/rootfs-overlay
    find . -type f | while read -r file; do
        wanted=yes
        target="$file"
        mode=0644
        case "$file" in
            *.tests.yaml|*.tests.toml)
                # The rules' and policies' own tests are for who writes them.
                wanted= ;;
            ./usr/lib/systemd/*|./usr/lib/sysusers.d/*|./usr/lib/tmpfiles.d/*)
                case " ${DEFENDER_INIT} " in *" systemd "*) ;; *) wanted= ;; esac ;;
            ./usr/libexec/defender/supervise)
                case " ${DEFENDER_INIT} " in *" sysvinit "*) ;; *) wanted= ;; esac ;;
            ./etc/init.d/*)
                case " ${DEFENDER_INIT} " in *" sysvinit "*) ;; *) wanted= ;; esac
                # Start order comes from update-rc.d here, not from the name.
                target="./etc/init.d/${file##*/S[0-9][0-9]}" ;;
            ./usr/share/dbus-1/*)
                case " ${PACKAGECONFIG} " in *" dbus "*) ;; *) wanted= ;; esac ;;
            ./etc/defender/defender.toml)
                # Comes with the recipe that VIRTUAL-RUNTIME_defender-config names.
                wanted= ;;
            ./etc/defender/*)
                # May hold credentials of sinks.
                mode=0640 ;;
            ./etc/ssh/*)
                mode=0600 ;;
        esac
        if [ -x "$file" ]; then
            mode=0755
        fi
        if [ -n "$wanted" ]; then
            install -D -m "$mode" "$file" "${D}/$target"
        fi
    done
}

do_install () {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/defender ${D}${bindir}/defender
    defender_install_overlay
    for directory in conf.d feeds policies rules; do
        install -d ${D}${sysconfdir}/defender/$directory
    done
    find ${D}${sysconfdir}/defender -type d -exec chmod 0750 {} +
    chown -R root:defender ${D}${sysconfdir}/defender
}

# The agent's command line and what calls it, for defender-config.bbclass and defender-posture.bbclass.
do_install:class-native () {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/defender ${D}${bindir}/defender
    install -D -m 0755 ${S}/agent/build-host/defender-image ${D}${bindir}/defender-image
    install -D -m 0644 ${S}/meta-defender/recipes-kernel/linux/files/defender.cfg ${D}${datadir}/defender/kernel-options.cfg
}

PACKAGES =+ "${PN}-firewall ${PN}-hardening ${PN}-strict"

FILES:${PN} += "${datadir}/dbus-1 \
                ${nonarch_libdir}/sysusers.d \
                ${nonarch_libdir}/tmpfiles.d \
                ${nonarch_libdir}/systemd/journald.conf.d \
                ${systemd_system_unitdir}/defender-syslog.socket"
# nooelint: oelint.var.filesoverride - a package of our own
FILES:${PN}-firewall = "${sysconfdir}/defender/nftables \
                        ${sysconfdir}/init.d/defender-firewall \
                        ${libexecdir}/defender/firewall \
                        ${systemd_system_unitdir}/defender-firewall.service"
# nooelint: oelint.var.filesoverride - a package of our own
FILES:${PN}-hardening = "${nonarch_libdir}/sysctl.d \
                         ${sysconfdir}/ssh"
# nooelint: oelint.var.filesoverride - a package of our own
FILES:${PN}-strict = "${systemd_system_unitdir}/defender.service.d"

# Made even where there is no systemd, so that it can be named there.
ALLOW_EMPTY:${PN}-strict = "1"

CONFFILES:${PN}-hardening = "${sysconfdir}/ssh/sshd_config.d/60-defender.conf"
CONFFILES:${PN}-firewall = "${sysconfdir}/defender/nftables/table.nft ${sysconfdir}/defender/nftables/base.nft"

VIRTUAL-RUNTIME_defender-config ??= "defender-config"
RDEPENDS:${PN}:append:class-target = " ${VIRTUAL-RUNTIME_defender-config}"
RDEPENDS:${PN}-firewall += "${PN}"
RDEPENDS:${PN}-strict += "${PN}"
# Modules matter only where the kernel does not have the options built in. nft, which is in meta-networking, is asked for in
# dynamic-layers/: a recommendation that no layer provides would keep the recipe from being built.
RRECOMMENDS:${PN}:append:class-target = " \
                                         kernel-module-nf-conntrack-netlink \
                                         kernel-module-nf-tables \
                                         kernel-module-nfnetlink-log \
                                         kernel-module-nft-ct \
                                         kernel-module-nft-limit \
                                         kernel-module-nft-log"

BBCLASSEXTEND = "native"
