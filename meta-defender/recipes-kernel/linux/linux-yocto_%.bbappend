# Nothing of this layer reaches the kernel unless DISTRO_FEATURES contains "defender". Everything is in the included file, since
# even an inline condition here would change the signatures of a build that does not want it.
# nooelint: oelint.file.requireinclude - there is nothing to require with the feature off
include ${@bb.utils.contains('DISTRO_FEATURES', 'defender', 'linux-yocto-defender.inc', '', d)}
