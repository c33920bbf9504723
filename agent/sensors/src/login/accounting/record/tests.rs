use proptest::prelude::*;

use super::*;

const GOLDEN: [(Layout, &[u8]); 2] = [
    (Layout::Time32, include_bytes!("../testdata/wtmp-384")),
    (Layout::Time64, include_bytes!("../testdata/wtmp-400")),
];

#[cfg(target_endian = "little")]
#[test]
fn golden_records_of_both_layouts() {
    for (layout, file) in GOLDEN {
        assert_eq!(Layout::of(file, file.len() as u64), Some(layout));
        let lines: Vec<String> = file
            .chunks(layout.size())
            .map(|bytes| {
                let r = Record::parse(layout, bytes).expect("a record");
                let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
                let [pid, source] = [r.pid.map(|p| p.to_string()), r.source.map(|s| s.to_string())].map(or);
                format!(
                    "{} {pid} {} {} {source} {}",
                    r.kind,
                    or(r.line),
                    or(r.user),
                    r.seconds - 1_700_000_000
                )
            })
            .collect();
        let expected = [
            "2 - ~ reboot - 0",
            "6 310 ttyS0 LOGIN - 10",
            "7 310 ttyS0 root - 20",
            "7 412 pts/0 admin 192.0.2.7 30",
            "7 413 pts/1 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 2001:db8::7 40",
            "8 412 pts/0 - - 90",
            "6 500 - evil\\xff 192.0.2.9 95",
        ];
        assert_eq!(lines, expected, "{layout:?}");
    }
}

/// The C library of the machine the tests run on.
#[cfg(all(
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm", target_arch = "aarch64")
))]
#[test]
fn the_offsets_are_those_of_the_c_library() {
    use std::mem::{offset_of, size_of};
    assert_eq!(size_of::<libc::utmpx>(), Layout::NATIVE.size());
    assert_eq!(offset_of!(libc::utmpx, ut_pid), 4);
    assert_eq!(offset_of!(libc::utmpx, ut_line), 8);
    assert_eq!(offset_of!(libc::utmpx, ut_user), 44);
    assert_eq!(offset_of!(libc::utmpx, ut_host), 76);
    let (time, address) = match Layout::NATIVE {
        Layout::Time32 => (340, 348),
        Layout::Time64 => (344, 360),
    };
    assert_eq!((offset_of!(libc::utmpx, ut_tv), offset_of!(libc::utmpx, ut_addr_v6)), (time, address));
    assert_eq!(
        [kind::INIT, kind::LOGIN, kind::USER, kind::DEAD],
        [libc::INIT_PROCESS, libc::LOGIN_PROCESS, libc::USER_PROCESS, libc::DEAD_PROCESS]
    );
}

#[test]
fn what_is_no_accounting_file_has_no_layout() {
    assert_eq!(Layout::of(b"", 0), None);
    assert_eq!(Layout::of(&GOLDEN[0].1[..200], 200), None);
    assert_eq!(Layout::of(&[b'x'; 4096], 4096), None);
    // A record that is half written does not unsettle the layout of those before it.
    let (layout, file) = GOLDEN[1];
    assert_eq!(Layout::of(&file[..900], 900), Some(layout));
}

/// Twenty-five of one are as long as twenty-four of the other.
#[cfg(target_endian = "little")]
#[test]
fn a_length_that_both_divide_is_decided_by_what_is_in_it() {
    for (layout, file) in GOLDEN {
        let login = &file[layout.size() * 2..layout.size() * 3];
        let many = login.repeat(9600 / layout.size());
        assert_eq!((many.len(), Layout::of(&many, 9600)), (9600, Some(layout)));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
        let layout = Layout::of(&bytes, bytes.len() as u64);
        for layout in [Layout::Time32, Layout::Time64].into_iter().chain(layout) {
            for record in bytes.chunks(layout.size()) {
                let _ = Record::parse(layout, record);
            }
        }
    }

    /// A golden record with some bytes overwritten: what comes out is bounded and printable at least as far as fields go.
    #[test]
    fn damaged_records_stay_in_bounds(which in 0usize..7, damage in prop::collection::vec((0usize..400, any::<u8>()), 1..40)) {
        for (layout, file) in GOLDEN {
            let mut bytes = file[which * layout.size()..][..layout.size()].to_vec();
            for (at, byte) in &damage {
                bytes[at % layout.size()] = *byte;
            }
            if let Some(record) = Record::parse(layout, &bytes) {
                prop_assert!((0..=kind::HIGHEST).contains(&record.kind) && (0..LATEST).contains(&record.seconds));
                prop_assert!(record.user.is_none_or(|user| user.len() <= 4 * USER_BYTES));
                prop_assert!(record.line.is_none_or(|line| line.is_ascii()));
            }
        }
    }
}
