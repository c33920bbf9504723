SUMMARY = "Device security agent and what it works with"
SUMMARY:${PN}-agent = "Device security agent without a base firewall ruleset"
DESCRIPTION = "The agent and its base firewall ruleset; and the agent alone, for products with a firewall of their own."

inherit packagegroup

PACKAGES = "${PN} ${PN}-agent"

RDEPENDS:${PN} = "${PN}-agent \
                  defender-firewall"
RDEPENDS:${PN}-agent = "defender"
