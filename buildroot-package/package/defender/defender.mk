################################################################################
#
# defender
#
################################################################################

DEFENDER_VERSION = 0.1.0
DEFENDER_RELEASE_SITE = $(call qstrip,$(BR2_PACKAGE_DEFENDER_RELEASE_SITE))
ifneq ($(DEFENDER_RELEASE_SITE),)
# Vendored already, so that name and hash do not depend on how this release
# of Buildroot would vendor it.
DEFENDER_SITE = $(DEFENDER_RELEASE_SITE)
DEFENDER_SOURCE = defender-$(DEFENDER_VERSION)-vendored.tar.gz
else
# The repository this external tree is part of.
DEFENDER_SITE = $(BR2_EXTERNAL_DEFENDER_PATH)/..
DEFENDER_SITE_METHOD = local
endif
DEFENDER_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude /target --exclude /tests/.work
DEFENDER_SUBDIR = agent/daemon
DEFENDER_LICENSE = Apache-2.0
DEFENDER_LICENSE_FILES = LICENSE
DEFENDER_CPE_ID_VENDOR = defender-project

# Buildroot's environment would override the release profile of Cargo.toml,
# which is part of what the agent promises about its size.
DEFENDER_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_OPT_LEVEL="z" \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1"

# No path of the build in the binary: two builds of one source are the same
# bytes. On ARM Buildroot's own flags, which this replaces, stay with it.
DEFENDER_RUSTFLAGS = --remap-path-prefix=$(@D)=/usr/src/defender
ifeq ($(NORMALIZED_ARCH),arm)
DEFENDER_RUSTFLAGS += -Clink-arg=-Wl,--allow-multiple-definition
endif
DEFENDER_CARGO_ENV += \
	CARGO_TARGET_$(call UPPERCASE,$(RUSTC_TARGET_NAME))_RUSTFLAGS="$(DEFENDER_RUSTFLAGS)"

ifeq ($(BR2_PACKAGE_DEFENDER_DBUS),y)
DEFENDER_FEATURES += dbus
DEFENDER_DEPENDENCIES += dbus
endif

ifeq ($(BR2_PACKAGE_DEFENDER_EBPF),y)
DEFENDER_FEATURES += ebpf
endif

# By whom the eBPF programs are compiled; the source brings them compiled.
DEFENDER_EBPF_CLANG = $(call qstrip,$(BR2_PACKAGE_DEFENDER_EBPF_CLANG))
ifneq ($(DEFENDER_EBPF_CLANG),)
DEFENDER_CARGO_ENV += DEFENDER_EBPF_CLANG="$(DEFENDER_EBPF_CLANG)"
DEFENDER_DEPENDENCIES += $(if $(filter $(HOST_DIR)/%,$(DEFENDER_EBPF_CLANG)),host-clang)
endif

ifeq ($(BR2_PACKAGE_DEFENDER_MQTT),y)
DEFENDER_FEATURES += mqtt
endif

ifeq ($(BR2_PACKAGE_DEFENDER_TLS),y)
DEFENDER_FEATURES += tls
DEFENDER_DEPENDENCIES += host-pkgconf openssl
endif

DEFENDER_CARGO_OPTS = \
	--no-default-features \
	$(addprefix --features=,$(DEFENDER_FEATURES))
DEFENDER_CARGO_BUILD_OPTS = $(DEFENDER_CARGO_OPTS)
DEFENDER_CARGO_INSTALL_OPTS = $(DEFENDER_CARGO_OPTS)

# For the host: the command line that checks images. TLS is there for the
# checks of certificates.
HOST_DEFENDER_DEPENDENCIES = host-openssl host-pkgconf
HOST_DEFENDER_CARGO_BUILD_OPTS = --no-default-features --features=tls
HOST_DEFENDER_CARGO_INSTALL_OPTS = $(HOST_DEFENDER_CARGO_BUILD_OPTS)

define HOST_DEFENDER_INSTALL_CHECK
	$(INSTALL) -D -m 0755 $(@D)/agent/build-host/defender-image \
		$(HOST_DIR)/bin/defender-image
	$(INSTALL) -D -m 0644 $(@D)/meta-defender/recipes-kernel/linux/files/defender.cfg \
		$(HOST_DIR)/share/defender/kernel-options.cfg
endef
HOST_DEFENDER_POST_INSTALL_HOOKS += HOST_DEFENDER_INSTALL_CHECK

# A local source is not vendored by Buildroot: scripts/vendor does it, and
# here the result goes where cargo looks for it.
define DEFENDER_USE_VENDOR
	@if ! cmp -s $(@D)/Cargo.lock $(@D)/buildroot-package/VENDOR/Cargo.lock; then \
		echo "defender: crates are missing or not those of Cargo.lock;" \
			"run $(BR2_EXTERNAL_DEFENDER_PATH)/scripts/vendor" >&2; \
		exit 1; \
	fi
	rm -rf $(@D)/VENDOR
	mv $(@D)/buildroot-package/VENDOR $(@D)/VENDOR
	mkdir -p $(@D)/.cargo
	printf '[source.crates-io]\nreplace-with = "vendored-sources"\n\n[source.vendored-sources]\ndirectory = "VENDOR"\n' \
		>>$(@D)/.cargo/config.toml
endef
DEFENDER_POST_RSYNC_HOOKS += DEFENDER_USE_VENDOR
HOST_DEFENDER_POST_RSYNC_HOOKS += DEFENDER_USE_VENDOR

# Everything of rootfs-overlay/ that this image has a use for, by pattern: a
# new file there needs no change here. Modes: programs 0755; configuration
# 0640, since it may hold credentials of sinks; the rest 0644. What belongs to
# an init system is installed with that init system, below.
define DEFENDER_INSTALL_OVERLAY_FILES
	cd $(@D)/rootfs-overlay && find . -type f | while read -r file; do \
		case "$$file" in \
			$(1)) ;; \
			*) continue ;; \
		esac; \
		case "$$file" in \
			$(2)) continue ;; \
			./etc/defender/*) mode=0640 ;; \
			./etc/ssh/*) mode=0600 ;; \
			*) mode=0644 ;; \
		esac; \
		if test -x "$$file"; then mode=0755; fi; \
		$(INSTALL) -D -m "$$mode" "$$file" "$(TARGET_DIR)/$$file" || exit 1; \
	done
endef

DEFENDER_SYSTEMD_FILES = ./usr/lib/systemd/*|./usr/lib/sysusers.d/*|./usr/lib/tmpfiles.d/*
DEFENDER_SYSV_FILES = ./etc/init.d/*|./usr/libexec/defender/supervise

# The rules' and policies' own tests are for who writes them.
DEFENDER_UNWANTED_FILES = *.tests.yaml|*.tests.toml
ifneq ($(BR2_PACKAGE_DEFENDER_DBUS),y)
DEFENDER_UNWANTED_FILES += |./usr/share/dbus-1/*
endif
ifneq ($(BR2_PACKAGE_DEFENDER_HARDENING),y)
DEFENDER_UNWANTED_FILES += |./etc/ssh/*|./usr/lib/sysctl.d/*
endif
ifneq ($(BR2_PACKAGE_DEFENDER_STRICT),y)
DEFENDER_UNWANTED_FILES += |./usr/lib/systemd/system/defender.service.d/*
endif
ifneq ($(BR2_PACKAGE_DEFENDER_RULES),y)
DEFENDER_UNWANTED_FILES += |./usr/share/defender/rules/*
endif
ifneq ($(BR2_PACKAGE_DEFENDER_POLICIES),y)
DEFENDER_UNWANTED_FILES += |./usr/share/defender/policies/*
endif
ifneq ($(BR2_PACKAGE_DEFENDER_FIREWALL),y)
DEFENDER_UNWANTED_FILES += |./etc/defender/nftables/*|./etc/init.d/*-firewall
DEFENDER_UNWANTED_FILES += |./usr/libexec/defender/firewall
DEFENDER_UNWANTED_FILES += |./usr/lib/systemd/system/defender-firewall.service
endif

DEFENDER_CONFIG_FILE = $(call qstrip,$(BR2_PACKAGE_DEFENDER_CONFIG_FILE))
ifneq ($(DEFENDER_CONFIG_FILE),)
define DEFENDER_INSTALL_CONFIG_FILE
	$(INSTALL) -D -m 0640 $(DEFENDER_CONFIG_FILE) $(TARGET_DIR)/etc/defender/defender.toml
endef
endif

DEFENDER_PROFILE_FILE = $(call qstrip,$(BR2_PACKAGE_DEFENDER_PROFILE_FILE))
ifneq ($(DEFENDER_PROFILE_FILE),)
define DEFENDER_INSTALL_PROFILE_FILE
	$(INSTALL) -D -m 0640 $(DEFENDER_PROFILE_FILE) $(TARGET_DIR)/etc/defender/profile.toml
	printf '[profile]\nenforce = "alert"\n' >$(TARGET_DIR)/etc/defender/conf.d/40-profile.toml
	chmod 0640 $(TARGET_DIR)/etc/defender/conf.d/40-profile.toml
endef
endif

define DEFENDER_INSTALL_OVERLAY
	$(call DEFENDER_INSTALL_OVERLAY_FILES,*,$(DEFENDER_UNWANTED_FILES)|$(DEFENDER_SYSTEMD_FILES)|$(DEFENDER_SYSV_FILES))
	cd $(TARGET_DIR)/etc/defender && mkdir -p conf.d feeds policies rules
	find $(TARGET_DIR)/etc/defender -type d -exec chmod 0750 {} +
	$(DEFENDER_INSTALL_CONFIG_FILE)
	$(DEFENDER_INSTALL_PROFILE_FILE)
endef
DEFENDER_POST_INSTALL_TARGET_HOOKS += DEFENDER_INSTALL_OVERLAY

define DEFENDER_INSTALL_INIT_SYSV
	$(call DEFENDER_INSTALL_OVERLAY_FILES,$(DEFENDER_SYSV_FILES),$(DEFENDER_UNWANTED_FILES))
endef

define DEFENDER_INSTALL_INIT_SYSTEMD
	$(call DEFENDER_INSTALL_OVERLAY_FILES,$(DEFENDER_SYSTEMD_FILES),$(DEFENDER_UNWANTED_FILES))
endef

define DEFENDER_USERS
	defender -1 defender -1 * - - - Device security agent
endef

define DEFENDER_PERMISSIONS
	/etc/defender r -1 root defender - - - - -
endef

# The same set as the table in docs/yocto.md and Yocto's defender.cfg; a test
# compares.
define DEFENDER_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_AUDIT)
	$(call KCONFIG_ENABLE_OPT,CONFIG_AUDITSYSCALL)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CONNECTOR)
	$(call KCONFIG_ENABLE_OPT,CONFIG_PROC_EVENTS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_INOTIFY_USER)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NETFILTER)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NETFILTER_ADVANCED)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NF_CONNTRACK)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NF_CONNTRACK_EVENTS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NF_CT_NETLINK)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NF_TABLES)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NF_TABLES_INET)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NFT_CT)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NFT_LIMIT)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NFT_LOG)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NETFILTER_NETLINK_LOG)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SYSFS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SECURITY)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SECURITY_LANDLOCK)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SECCOMP)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SECCOMP_FILTER)
endef

# A product's files there come with its root file system overlay, from which
# Buildroot makes what everybody may read; they may hold credentials of sinks.
define DEFENDER_KEEP_CREDENTIALS
	chmod -R o-rwx $(TARGET_DIR)/etc/defender
endef
DEFENDER_ROOTFS_PRE_CMD_HOOKS += DEFENDER_KEEP_CREDENTIALS

# The finished root file system, once owners and modes are the device's.
ifeq ($(BR2_PACKAGE_DEFENDER_CHECK),y)
DEFENDER_DEPENDENCIES += host-defender
DEFENDER_IMAGE = DEFENDER=$(HOST_DIR)/bin/defender $(HOST_DIR)/bin/defender-image
DEFENDER_KERNEL_CONFIG = $(if $(BR2_LINUX_KERNEL),--kernel-config $(LINUX_DIR)/.config)
DEFENDER_POSTURE_OPTIONS = $(call qstrip,$(BR2_PACKAGE_DEFENDER_POSTURE_OPTIONS)) $(DEFENDER_KERNEL_CONFIG)

# Lines of the script that runs under fakeroot and ends at the first failure.
define DEFENDER_CHECK_IMAGE
	$(DEFENDER_IMAGE) check $(TARGET_DIR) $(DEFENDER_KERNEL_CONFIG)
endef
DEFENDER_ROOTFS_PRE_CMD_HOOKS += DEFENDER_CHECK_IMAGE

# Below the bar is 1; everything else fails the build in any case.
ifneq ($(BR2_PACKAGE_DEFENDER_POSTURE_OFF),y)
define DEFENDER_GRADE_IMAGE
	$(DEFENDER_IMAGE) posture $(TARGET_DIR) $(BINARIES_DIR)/posture $(DEFENDER_POSTURE_OPTIONS) $(if $(BR2_PACKAGE_DEFENDER_POSTURE_WARN),|| test $$? -eq 1)
endef
DEFENDER_ROOTFS_PRE_CMD_HOOKS += DEFENDER_GRADE_IMAGE
endif
endif

$(eval $(cargo-package))
$(eval $(host-cargo-package))
