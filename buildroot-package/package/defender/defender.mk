################################################################################
#
# defender
#
################################################################################

DEFENDER_VERSION = 0.1.0
# The repository this external tree is part of. There is no public release
# yet; when there is one, a pre-vendored tarball takes this place.
DEFENDER_SITE = $(BR2_EXTERNAL_DEFENDER_PATH)/..
DEFENDER_SITE_METHOD = local
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

ifeq ($(BR2_PACKAGE_DEFENDER_DBUS),y)
DEFENDER_FEATURES += dbus
DEFENDER_DEPENDENCIES += dbus
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
		>$(@D)/.cargo/config.toml
endef
DEFENDER_POST_RSYNC_HOOKS += DEFENDER_USE_VENDOR

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
ifneq ($(BR2_PACKAGE_DEFENDER_FIREWALL),y)
DEFENDER_UNWANTED_FILES += |./etc/defender/nftables/*|./etc/init.d/*-firewall
DEFENDER_UNWANTED_FILES += |./usr/libexec/defender/firewall
DEFENDER_UNWANTED_FILES += |./usr/lib/systemd/system/defender-firewall.service
endif

define DEFENDER_INSTALL_OVERLAY
	$(call DEFENDER_INSTALL_OVERLAY_FILES,*,$(DEFENDER_UNWANTED_FILES)|$(DEFENDER_SYSTEMD_FILES)|$(DEFENDER_SYSV_FILES))
	mkdir -p $(TARGET_DIR)/etc/defender/conf.d $(TARGET_DIR)/etc/defender/rules
	find $(TARGET_DIR)/etc/defender -type d -exec chmod 0750 {} +
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
	$(call KCONFIG_ENABLE_OPT,CONFIG_SECURITY)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SECURITY_LANDLOCK)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SECCOMP)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SECCOMP_FILTER)
endef

$(eval $(cargo-package))
