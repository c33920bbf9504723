#!/usr/bin/env python3
"""Writes the golden records beside this file: the same seven in both layouts, in little-endian byte order.

The formats are bits/utmp.h of glibc for x86 (384 bytes) and aarch64 (400 bytes; musl's struct utmpx has the same offsets).
Run it again after a change; util-linux' `utmpdump wtmp-384` on x86 shows the first file in words.
"""
import pathlib
import socket
import struct

LAYOUTS = {
    384: "<h2xi32s4s32s256shhiii16s20x",    # ut_session and ut_tv in 32 bits
    400: "<h2xi32s4s32s256shhqqq16s20x4x",  # in 64 bits
}
V4 = socket.inet_aton("192.0.2.7") + bytes(12)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7")
# type, pid, line, id, user, host, seconds, address
RECORDS = [
    (2, 0, b"~", b"~~", b"reboot", b"6.6.1", 1700000000, bytes(16)),             # BOOT_TIME
    (6, 310, b"ttyS0", b"S0", b"LOGIN", b"", 1700000010, bytes(16)),             # LOGIN_PROCESS, getty
    (7, 310, b"ttyS0", b"S0", b"root", b"", 1700000020, bytes(16)),              # USER_PROCESS, console
    (7, 412, b"pts/0", b"ts/0", b"admin", b"host.example", 1700000030, V4),      # USER_PROCESS, ssh
    (7, 413, b"pts/1", b"ts/1", b"a" * 32, b"2001:db8::7", 1700000040, V6),      # a name that fills its field
    (8, 412, b"pts/0", b"ts/0", b"", b"", 1700000090, bytes(16)),                # DEAD_PROCESS
    (6, 500, b"ssh:notty", b"", b"evil\xff", b"192.0.2.9", 1700000095, bytes(16)),  # as sshd writes btmp
]
for size, layout in LAYOUTS.items():
    assert struct.calcsize(layout) == size
    with open(pathlib.Path(__file__).with_name(f"wtmp-{size}"), "wb") as file:
        for kind, pid, line, ident, user, host, seconds, address in RECORDS:
            file.write(struct.pack(layout, kind, pid, line, ident, user, host, 0, 0, 0, seconds, 0, address))
