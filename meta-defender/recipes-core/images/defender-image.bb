SUMMARY = "Example image guarded by the device security agent"
DESCRIPTION = "A minimal image with an ssh server and the agent, checked and graded when it is built. An example: a product adds the \
image feature and the two classes to an image of its own."
LICENSE = "MIT"

inherit core-image defender-config defender-posture

IMAGE_FEATURES += "defender ssh-server-dropbear"

# What an example cannot decide for a product, such as the secure boot of its board, is told and does not stop the build.
DEFENDER_POSTURE_ACTION ?= "warn"
# nft is in meta-networking, which this layer does not ask for.
DEFENDER_CONFIG_MISSING ?= "${@bb.utils.contains('BBFILE_COLLECTIONS', 'networking-layer', 'fail', 'warn', d)}"
