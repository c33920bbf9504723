SUMMARY = "Device security agent and what it works with"
SUMMARY:${PN}-agent = "Device security agent without base firewall and hardening"
DESCRIPTION = "The agent, its base firewall ruleset, kernel parameters and sshd options; and the agent alone, for products that have their own."

inherit packagegroup

PACKAGES = "${PN} ${PN}-agent"

RDEPENDS:${PN} = "${PN}-agent \
                  defender-firewall \
                  defender-hardening"
RDEPENDS:${PN}-agent = "defender"
