SUMMARY = "Device security agent that is sure to block"
DESCRIPTION = "The agent, its base firewall ruleset and nft, which they work with: an image that lacks one of them is not built. \
packagegroup-defender only recommends nft, since it is in meta-networking."

inherit packagegroup

RDEPENDS:${PN} = "nftables \
                  packagegroup-defender"
