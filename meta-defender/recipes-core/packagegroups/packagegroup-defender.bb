SUMMARY = "Device security agent and what it works with"
DESCRIPTION = "The agent, its base firewall ruleset and the firewall tool it blocks with."

inherit packagegroup

RDEPENDS:${PN} = "defender \
                  defender-firewall"
