SUMMARY = "Device security agent beside the audit daemon"
DESCRIPTION = "For products that have to keep an audit log of their own: auditd owns audit, the agent listens beside it."

inherit packagegroup

RDEPENDS:${PN} = "auditd \
                  packagegroup-defender"
