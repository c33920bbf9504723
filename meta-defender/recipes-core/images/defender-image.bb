SUMMARY = "Example image guarded by the device security agent"
DESCRIPTION = "A minimal image with an ssh server and the agent. An example: a product adds packagegroup-defender to its own image."
LICENSE = "MIT"

inherit core-image

IMAGE_FEATURES += "ssh-server-dropbear"
IMAGE_INSTALL += "packagegroup-defender"
