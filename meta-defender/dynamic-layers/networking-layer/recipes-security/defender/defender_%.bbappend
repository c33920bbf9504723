# SPDX-License-Identifier: MIT
# The agent blocks through nft, which this layer has. nft's JSON output is on by default there.
RRECOMMENDS:${PN}:append:class-target = " nftables"
