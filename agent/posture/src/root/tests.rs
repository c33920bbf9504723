use std::os::unix::fs::{symlink, PermissionsExt as _};

use super::*;

struct Image {
    directory: tempfile::TempDir,
}

impl Image {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }
    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join("root").join(below)
    }
    fn write(&self, below: &str, bytes: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.path(below).parent().unwrap()).unwrap();
        std::fs::write(self.path(below), bytes).unwrap();
    }
    fn link(&self, target: &str, below: &str) {
        std::fs::create_dir_all(self.path(below).parent().unwrap()).unwrap();
        symlink(target, self.path(below)).unwrap();
    }
    /// Both ways of resolving must agree on everything.
    fn roots(&self) -> [Root; 2] {
        let open = || Root::open(&self.path("")).unwrap();
        let mut second = open();
        second.without_openat2();
        [open(), second]
    }
}

#[test]
fn no_link_leads_out() {
    let image = Image::new();
    std::fs::write(image.directory.path().join("secret"), "outside").unwrap();
    image.write("secret", "inside");
    image.write("etc/real", "real");
    image.link("/secret", "etc/absolute");
    image.link("../../../../../../secret", "etc/climbing");
    image.link("../..", "etc/up");
    image.link("/etc", "config");
    image.link("real", "etc/relative");
    image.link("/nowhere", "etc/dangling");
    for root in image.roots() {
        let text = |path: &str| root.text(path).unwrap();
        assert_eq!(text("/etc/absolute").as_deref(), Some("inside"));
        assert_eq!(text("/etc/climbing").as_deref(), Some("inside"));
        assert_eq!(text("/etc/up/secret").as_deref(), Some("inside"));
        assert_eq!(text("/../../secret").as_deref(), Some("inside"));
        assert_eq!(text("/config/relative").as_deref(), Some("real"));
        assert_eq!(text("config/../etc/real").as_deref(), Some("real"));
        assert_eq!(text("/etc/dangling"), None);
        assert_eq!(text("/etc/real/below"), None);
        assert_eq!(root.link_metadata("/etc/dangling").unwrap().unwrap().kind, Kind::Link);
        assert_eq!(root.read_link("/etc/dangling").unwrap().unwrap(), Path::new("/nowhere"));
        assert_eq!(root.read_link("/etc/real").unwrap(), None);
        assert_eq!(root.metadata("/").unwrap().unwrap().kind, Kind::Directory);
        assert_eq!(root.metadata("/config").unwrap().unwrap().kind, Kind::Directory);
        assert_eq!(root.metadata("/config/").unwrap().unwrap().kind, Kind::Directory);
        assert_eq!(root.list("/config").unwrap().len(), 6);
        assert_eq!(root.list("/nothing").unwrap().len(), 0);
        assert!(root.list("/secret").unwrap_err().reason.contains("not a directory"));
    }
}

#[test]
fn circles_of_links_end() {
    let image = Image::new();
    image.link("b", "a");
    image.link("a", "b");
    image.link("self/x", "self");
    image.link("/deep/deep", "deep");
    for root in image.roots() {
        for path in ["/a", "/self", "/deep", "/a/b/c"] {
            let error = root.read(path).unwrap_err();
            assert!(error.reason.contains("circle"), "{error}");
            assert!(root.metadata(path).is_err());
        }
    }
}

#[test]
fn links_of_proc_that_are_not_paths_are_refused() {
    for (root, below) in [("/", "/proc/self/root/etc"), ("/proc", "/self/cwd"), ("/proc", "/self/exe")] {
        let mut stepwise = Root::open(Path::new(root)).unwrap();
        let by_kernel = Root::open(Path::new(root)).unwrap();
        stepwise.without_openat2();
        assert!(by_kernel.metadata(below).is_err());
        if root == "/proc" {
            // Step by step such a link is read as the text it shows, below the root: it leads nowhere.
            assert_eq!(stepwise.metadata(below), Ok(None));
        }
    }
}

#[test]
fn only_regular_files_are_read_and_none_blocks() {
    let image = Image::new();
    image.write("plain", "x");
    std::fs::create_dir(image.path("directory")).unwrap();
    let fifo = CString::new(image.path("fifo").into_os_string().into_vec()).unwrap();
    // SAFETY: the path ends in NUL.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o666) }, 0);
    let _listener = std::os::unix::net::UnixListener::bind(image.path("socket")).unwrap();
    for root in image.roots() {
        for (path, what) in [("fifo", "a FIFO"), ("directory", "a directory"), ("socket", "a socket")] {
            let error = root.read(path).unwrap_err();
            assert!(error.reason.starts_with(what), "{error}");
        }
        assert_eq!(root.read("plain").unwrap().unwrap(), b"x");
    }
    let devices = Root::open(Path::new("/dev")).unwrap();
    assert!(devices.read("/zero").unwrap_err().reason.starts_with("a character device"));
}

#[test]
fn a_giant_is_not_read() {
    let image = Image::new();
    image.write("giant", "");
    File::options().write(true).open(image.path("giant")).unwrap().set_len(1 << 30).unwrap();
    image.write("full", vec![b'x'; usize::try_from(READ_LIMIT).unwrap()]);
    for root in image.roots() {
        assert_eq!(root.read("giant").unwrap_err().to_string(), "giant: longer than 4 MiB");
        assert_eq!(root.read("full").unwrap().unwrap().len() as u64, READ_LIMIT);
    }
}

#[test]
fn what_may_not_be_read_cannot_be_told() {
    let image = Image::new();
    image.write("locked", "x");
    std::fs::set_permissions(image.path("locked"), std::fs::Permissions::from_mode(0o000)).unwrap();
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return; // root reads everything; the fixture runner covers it as another user
    }
    for root in image.roots() {
        assert_eq!(root.read("locked").unwrap_err().reason, "permission denied");
    }
}

#[test]
fn the_table_says_who_owns() {
    let image = Image::new();
    image.write("bin/su", "x");
    image.write("srv/a/b", "x");
    let table = DeviceTable::parse(
        b"/bin/su f 4755 0 0\n/srv r - 33 34\n/dev/mem c 640 0 15 1 1 - - -\n",
        |_| None,
        |_| None,
    )
    .unwrap();
    for mut root in image.roots() {
        root.apply(&table).unwrap();
        let su = root.metadata("/bin/su").unwrap().unwrap();
        assert_eq!((su.mode, su.uid), (0o4755, 0));
        let below = root.metadata("/srv/a/b").unwrap().unwrap();
        assert_eq!((below.uid, below.gid), (33, 34));
        let memory = root.metadata("/dev/mem").unwrap().unwrap();
        assert_eq!((memory.kind, memory.gid), (Kind::Character, 15));
        assert_eq!(root.glob("/dev/m*").unwrap(), [PathBuf::from("/dev/mem")]);
    }
}

#[test]
fn patterns_expand_below_the_root() {
    let image = Image::new();
    for name in ["etc/a.conf", "etc/b.conf", "etc/.hidden.conf", "etc/d/c.conf", "usr/etc/e.conf"] {
        image.write(name, "");
    }
    image.link("/etc", "usr/link");
    for root in image.roots() {
        let of = |pattern: &str| {
            let found = root.glob(pattern).unwrap();
            found.iter().map(|p| p.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of("/etc/*.conf"), ["/etc/a.conf", "/etc/b.conf"]);
        assert_eq!(of("/etc/**/*.conf"), ["/etc/a.conf", "/etc/b.conf", "/etc/d/c.conf"]);
        assert_eq!(of("/{usr/,}etc/e.conf"), ["/usr/etc/e.conf"]);
        assert_eq!(of("/usr/link/a.conf"), ["/usr/link/a.conf"]);
        assert_eq!(of("/usr/**/a.conf"), Vec::<String>::new(), "`**` follows no links");
        assert_eq!(of("/nothing"), Vec::<String>::new());
        assert!(of("/etc/**").contains(&"/etc/d/c.conf".to_owned()));
    }
}

#[test]
fn a_link_into_what_is_hidden_is_not_hidden_itself() {
    let place = tempfile::tempdir().unwrap();
    let hidden = place.path().join("hidden");
    std::fs::create_dir(&hidden).unwrap();
    std::fs::write(hidden.join("file"), "x").unwrap();
    let link = place.path().join("link");
    symlink(hidden.join("file"), &link).unwrap();
    let mask = place.path().join("mask");
    symlink("/dev/null", &mask).unwrap();
    let root = Root::open(Path::new("/")).unwrap();
    root.hide(vec![hidden.clone(), "/dev".into()]);
    assert!(root.read(&link).is_err() && root.link_metadata(&hidden).is_err());
    assert_eq!(root.read_link(&link), Ok(Some(hidden.join("file"))));
    assert_eq!(root.read(&mask), Ok(Some(Vec::new())), "a mask needs no /dev");
}
