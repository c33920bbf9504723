//! What becomes of users and groups, by the files alone.

use std::time::Duration;

use crate::device::{class, Event};
use crate::error::Result;
use crate::image::DEVICE_USER;

use super::World;

const REPORT: Duration = Duration::from_secs(20);

pub(super) fn accounts_and_groups_change(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    let told = |kind: &'static str, name: &'static str, class: u64, activity: u64| {
        move |event: &Event| {
            event.class() == class
                && event.at("/activity_id") == activity
                && event.at("/unmapped/kind") == kind
                && (event.at("/user/name") == name || event.at("/group/name") == name)
        }
    };
    let wanted = |machine: &mut crate::qemu::Machine, list: &[(&'static str, &'static str, u64, u64)]| {
        list.iter().try_for_each(|(kind, name, class, activity)| {
            machine.event(kind, kind, REPORT, told(kind, name, *class, *activity)).map(drop)
        })
    };
    // The root is read-only, so another directory is put over the one there is, all changes at once.
    machine.ok(&format!(
        "cp -a /etc /run/etc && cd /run/etc && echo 'probe:x:4711:' >>group && sed -i 's/^audio:.*:$/&root/' group && \
         sed -i -e 's/^{DEVICE_USER}:/&!/' -e 's/^root:[^:]*:/root:$6$probe$changed:/' shadow && cd / && mount --bind /run/etc /etc"
    ))?;
    let changed = wanted(
        machine,
        &[
            ("group_created", "probe", class::GROUP, 6),
            ("member_added", "audio", class::GROUP, 3),
            ("user_locked", DEVICE_USER, class::ACCOUNT, 9),
            ("password_changed", "root", class::ACCOUNT, 3),
        ],
    );
    machine.ok("umount -l /etc && rm -r /run/etc")?;
    changed?;
    wanted(
        machine,
        &[
            ("group_deleted", "probe", class::GROUP, 5),
            ("member_removed", "audio", class::GROUP, 4),
            ("user_unlocked", DEVICE_USER, class::ACCOUNT, 12),
        ],
    )
}
