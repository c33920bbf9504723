# SPDX-License-Identifier: MIT
#
# Grades the finished root file system against the image's own posture policies, under pseudo, where owners and devices are those
# of the device, and writes the reports beside the image: IMAGE.posture.html, .json (OCSF Compliance Findings) and .junit.xml.
#
# It is the last thing before the root file system becomes an image. Images without the agent are left alone.

inherit defender-config

# What a posture below the bar does: fail the build, or warn.
DEFENDER_POSTURE_ACTION ?= "fail"
# The bar: no failed check of this severity or above (low, medium, high, critical; empty for no such bar) ...
DEFENDER_POSTURE_FAIL_ON ?= "high"
# ... and at least this score of 100; empty: posture.minimum_score of the image's configuration.
DEFENDER_POSTURE_MIN_SCORE ?= ""
# Further options of "defender posture", such as --strict, --policy ID or --cmdline "TEXT". As words of a shell.
DEFENDER_POSTURE_OPTIONS ?= ""

# Where the reports go until do_image_complete deploys them, without their endings.
DEFENDER_POSTURE_REPORTS = "${IMGDEPLOYDIR}/${IMAGE_NAME}.posture"

do_image[depends] += "defender-native:do_populate_sysroot"

python defender_posture_gate () {
    import shlex

    if not defender_in_image(d):
        return
    action = d.getVar('DEFENDER_POSTURE_ACTION')
    if action not in ('fail', 'warn'):
        bb.fatal("DEFENDER_POSTURE_ACTION is fail or warn, not '%s'" % action)
    reports = d.getVar('DEFENDER_POSTURE_REPORTS')
    arguments = [reports]
    for option, variable in (('--fail-on', 'DEFENDER_POSTURE_FAIL_ON'), ('--min-score', 'DEFENDER_POSTURE_MIN_SCORE')):
        if d.getVar(variable):
            arguments += [option, d.getVar(variable)]
    kernel = d.getVar('DEFENDER_KERNEL_CONFIG')
    if kernel and os.path.exists(kernel):
        arguments += ['--kernel-config', kernel]
    arguments += shlex.split(d.getVar('DEFENDER_POSTURE_OPTIONS'))
    code, said = defender_image(d, 'posture', *arguments)
    for ending in ('html', 'json', 'junit.xml'):
        link = d.expand('${IMGDEPLOYDIR}/${IMAGE_LINK_NAME}.posture.' + ending)
        report = '%s.%s' % (reports, ending)
        if link != report and os.path.exists(report):
            if os.path.lexists(link):
                os.remove(link)
            os.symlink(os.path.basename(report), link)
    if code == 0:
        bb.note(said)
    elif code == 1 and action == 'warn':
        bb.warn(said)
    else:
        bb.fatal("%s\nReports: %s.html, .json, .junit.xml" % (said, reports))
}

IMAGE_PREPROCESS_COMMAND:append = " defender_posture_gate"
