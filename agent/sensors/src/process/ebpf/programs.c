/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Execs and exits, from inside the kernel.
 *
 * Both programs are raw tracepoints. No structure of the kernel is declared here: where its members lie is read from the running
 * kernel's BTF by btf.rs and passed in the map `offsets`, so that one object serves every 64-bit little-endian kernel with BTF.
 * The loader is object.rs; what the records mean is in record.rs, and both sides must agree on the numbers below.
 *
 * Arguments are read from the new program's own memory, which no other thread can reach before the program runs.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* Maps are made by the loader; only their names matter here. */
int events SECTION("maps");
int scratch SECTION("maps");
int counters SECTION("maps");
int offsets SECTION("maps");

/* Helpers by number, linux/bpf.h. */
static void *(*lookup)(void *map, const void *key) = (void *)1;
static u64 (*boot_time)(void) = (void *)125;
static u64 (*current_task)(void) = (void *)35;
static long (*read_user)(void *to, u32 size, u64 from) = (void *)112;
static long (*read_kernel)(void *to, u32 size, u64 from) = (void *)113;
static long (*read_kernel_text)(void *to, u32 size, u64 from) = (void *)115;
static long (*output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static u64 (*query)(void *ring, u64 flags) = (void *)134;

#define FORCE_WAKEUP 2
#define AVAILABLE_DATA 0

/* Order of btf::MEMBERS. */
struct offsets {
    u32 task_real_parent, task_tgid, task_mm, task_fs, task_signal, task_leader, task_exit_code, task_cred;
    u32 cred_uid, cred_euid, cred_gid;
    u32 mm_arg_start, mm_arg_end, mm_exe_file;
    u32 fs_root, fs_pwd, path_mnt, path_dentry, file_path;
    u32 dentry_parent, dentry_name, qstr_name, dentry_hash, hash_pprev;
    u32 vfsmount_root, mount_vfs, mount_parent, mount_point;
    u32 signal_live, signal_code, signal_flags, signal_tty, tty_name;
    /* Without CONFIG_AUDIT these two are ABSENT. */
    u32 task_loginuid, task_sessionid;
    /* Bytes in `events`, from the loader. */
    u32 ring;
};
#define ABSENT 0xffffffff
#define SIGNAL_GROUP_EXIT 4

/* Kinds of record. An exec is its parts, then its head: once the head is there, nothing more comes. */
#define EXECUTABLE 1
#define DIRECTORY 2
#define ARGUMENTS 3
#define EXEC 4
#define EXIT 5

#define CHUNK 16384
#define CHUNKS 12
#define NAME 256
#define DEPTH 40
#define PATH 4096

struct part {
    u32 kind, pid, flags, zero;
    u8 bytes[CHUNK + NAME];
};
#define DELETED 1
#define PSEUDO 2
#define CUT 4

struct exec {
    u32 kind, pid, ppid, flags;
    u64 time, arguments;
    u32 uid, euid, gid, auid, session, zero;
    u8 tty[32];
};

struct exit {
    u32 kind, pid;
    u64 time;
    u32 status, zero;
};

INLINE u64 word(u64 from, u32 offset)
{
    u64 value = 0;
    read_kernel(&value, sizeof(value), from + offset);
    return value;
}

INLINE u32 half(u64 from, u32 offset)
{
    u32 value = 0;
    read_kernel(&value, sizeof(value), from + offset);
    return value;
}

/* The reader waits for age by itself (the ring wakes it for the first record only): it is woken early when half is full. */
INLINE void put(const struct offsets *at, void *data, u64 size)
{
    u64 flags = query(&events, AVAILABLE_DATA) > at->ring / 2 ? FORCE_WAKEUP : 0;
    if (output(&events, data, size, flags) != 0) {
        u32 zero = 0;
        u64 *lost = lookup(&counters, &zero);
        if (lost)
            __sync_fetch_and_add(lost, 1);
    }
}

/* Names from the file up to the process's root, each with its NUL. */
INLINE void path(const struct offsets *at, struct part *part, u32 kind, u64 of, u64 root)
{
    u64 dentry = word(of, at->path_dentry), mnt = word(of, at->path_mnt);
    u64 root_dentry = word(root, at->path_dentry), root_mnt = word(root, at->path_mnt);
    u64 mount = mnt - at->mount_vfs;
    u32 length = 0;

    part->kind = kind;
    part->flags = CUT;
    if (word(dentry, at->dentry_hash + at->hash_pprev) == 0)
        part->flags |= DELETED;
    for (int i = 0; i < DEPTH; i++) {
        u64 parent = word(dentry, at->dentry_parent);
        if (dentry == 0 || (dentry == root_dentry && mount + at->mount_vfs == root_mnt)) {
            part->flags &= ~CUT;
            break;
        }
        if (dentry == word(mount + at->mount_vfs, at->vfsmount_root)) {
            u64 above = word(mount, at->mount_parent);
            if (above == mount || above == 0) {
                part->flags &= ~CUT;
                break;
            }
            dentry = word(mount, at->mount_point);
            mount = above;
            continue;
        }
        if (length > PATH)
            break;
        long read = read_kernel_text(part->bytes + (length & (CHUNK - 1)), NAME,
                                     word(dentry, at->dentry_name + at->qstr_name));
        if (read <= 0)
            break;
        length += (u32)read & 511;
        if (parent == dentry) {
            /* A file of no directory: memfd_create(2). */
            part->flags = (part->flags & ~CUT) | PSEUDO;
            break;
        }
        dentry = parent;
    }
    put(at, part, 16 + (length & (CHUNK - 1)));
}

SECTION("exec")
int on_exec(u64 *context)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    struct part *part = lookup(&scratch, &zero);
    if (!at || !part)
        return 0;

    u64 task = current_task();
    u64 mm = word(task, at->task_mm), fs = word(task, at->task_fs), cred = word(task, at->task_cred);
    u64 root = fs + at->fs_root;
    struct exec head = {.kind = EXEC, .time = boot_time()};
    head.pid = half(task, at->task_tgid);
    head.ppid = half(word(task, at->task_real_parent), at->task_tgid);
    head.uid = half(cred, at->cred_uid);
    head.euid = half(cred, at->cred_euid);
    head.gid = half(cred, at->cred_gid);
    head.auid = at->task_loginuid == ABSENT ? ABSENT : half(task, at->task_loginuid);
    head.session = at->task_sessionid == ABSENT ? ABSENT : half(task, at->task_sessionid);
    u64 tty = word(word(task, at->task_signal), at->signal_tty);
    if (tty)
        read_kernel_text(head.tty, sizeof(head.tty), tty + at->tty_name);

    part->pid = head.pid;
    part->zero = 0;
    path(at, part, EXECUTABLE, word(mm, at->mm_exe_file) + at->file_path, root);
    path(at, part, DIRECTORY, fs + at->fs_pwd, root);

    u64 from = word(mm, at->mm_arg_start), end = word(mm, at->mm_arg_end);
    part->kind = ARGUMENTS;
    part->flags = 0;
    for (int i = 0; i < CHUNKS && from < end; i++) {
        u64 size = end - from;
        if (size > CHUNK)
            size = CHUNK;
        /* The last quarter is for heads: long arguments must not push out other execs. */
        if (query(&events, AVAILABLE_DATA) + size > at->ring / 4 * 3)
            break;
        if (read_user(part->bytes, size, from) != 0)
            break;
        put(at, part, 16 + size);
        from += size;
        head.arguments += size;
    }
    if (from < end)
        head.flags = CUT;
    put(at, &head, sizeof(head));
    return 0;
}

SECTION("exit")
int on_exit(u64 *context)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    if (!at)
        return 0;
    u64 task = current_task(), signal = word(task, at->task_signal);
    /* Counted down before the tracepoint: zero at the last thread's end. */
    if (half(signal, at->signal_live) != 0)
        return 0;
    struct exit exit = {.kind = EXIT, .time = boot_time()};
    exit.pid = half(task, at->task_tgid);
    if (half(signal, at->signal_flags) & SIGNAL_GROUP_EXIT)
        exit.status = half(signal, at->signal_code);
    else
        exit.status = half(word(task, at->task_leader), at->task_exit_code);
    put(at, &exit, sizeof(exit));
    return 0;
}

char terms[] SECTION("license") = "GPL";
