//! Peripherals, kernel modules, the packet filter.

use std::fmt::Write as _;

use defender_model::kernel::{FirewallChange, ModuleActivity};
use defender_model::peripheral::PeripheralActivity;

use super::file::digest;
use super::{
    non_empty, number, optional, some_text, text, truth, with_actor, word, FieldSpec, Scratch, Value, Values,
};

pub(super) const PERIPHERAL: &[FieldSpec] = &[
    word(&["DeviceClass", "class"]),
    word(&["bus"]),
    word(&["interface", "DeviceName"]),
    text(&["DevicePath"]),
    word(&["VendorId"]),
    word(&["ProductId"]),
    text(&["Vendor"]),
    text(&["Product"]),
    text(&["SerialNumber", "serial"]),
    word(&["Functions"]),
    word(&["Interfaces"]),
    word(&["Parent"]),
    word(&["Allowed"]),
];

pub(super) fn peripheral<'e>(device: &'e PeripheralActivity, scratch: &'e mut Scratch) -> Values<'e> {
    let Scratch { first, second, .. } = scratch;
    let hex = |number: Option<u16>, out: &'e mut String| match number {
        Some(number) => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{number:04x}");
            Value::Text(out)
        }
        None => Value::Absent,
    };
    Values::of(&[
        Value::Text(device.class.name()),
        non_empty(&device.bus),
        non_empty(&device.interface),
        non_empty(&device.path),
        hex(device.vendor_id, first),
        hex(device.product_id, second),
        some_text(device.vendor.as_deref()),
        some_text(device.product.as_deref()),
        some_text(device.serial.as_deref()),
        non_empty(&device.functions),
        non_empty(&device.interfaces),
        some_text(device.parent.as_deref()),
        device.allowed.map_or(Value::Absent, truth),
    ])
}

pub(super) const MODULE: &[FieldSpec] = with_actor![
    text(&["ImageLoaded", "path"]),
    text(&["ModuleName", "name"]),
    word(&["Hashes"]),
    word(&["sha256"]),
];

pub(super) fn module<'e>(module: &'e ModuleActivity, scratch: &'e mut Scratch) -> Values<'e> {
    let (hashes, sha256) = digest(module.sha256, &mut scratch.first);
    Values::of(&[some_text(module.path.as_deref()), non_empty(&module.name), hashes, sha256])
        .actor(4, module.process.as_ref())
}

pub(super) const EBPF: &[FieldSpec] =
    with_actor![text(&["ProgramName", "name"]), word(&["ProgramType", "type"])];

pub(super) fn ebpf(program: &ModuleActivity) -> Values<'_> {
    let kind = program.program.filter(|kind| kind.0 != 0);
    Values::of(&[non_empty(&program.name), kind.map_or(Value::Absent, |kind| Value::Text(kind.name()))])
        .actor(2, program.process.as_ref())
}

pub(super) const FIREWALL: &[FieldSpec] = with_actor![
    word(&["activity"]),
    word(&["family"]),
    text(&["table"]),
    text(&["operation", "op"]),
    number(&["entries"]),
    text(&["effect"]),
    text(&["summary"]),
];

pub(super) fn firewall(done: &FirewallChange) -> Values<'_> {
    Values::of(&[
        Value::Text(done.change.name()),
        non_empty(&done.family),
        non_empty(&done.table),
        non_empty(&done.operation),
        optional(done.entries),
        non_empty(&done.effect),
        non_empty(&done.summary),
    ])
    .actor(7, done.process.as_ref())
}
