/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What processes do, from inside the kernel.
 *
 * Execs, exits, modules and what is sent are raw tracepoints; the others run as a function of the kernel begins (fentry) or ends (fexit),
 * where there is no tracepoint. No structure of the kernel is declared here: where its members lie is read from the running
 * kernel's BTF by btf.rs and passed in the map `offsets`, so that one object serves every little-endian kernel of its word size with BTF.
 * The loader is object.rs; what the records mean is in record.rs, and both sides must agree on the numbers below.
 *
 * Arguments are read from the new program's own memory, which no other thread can reach before the program runs.
 */

#include "shared.h"

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
    /* Nor are those of IPv6, or all of these, where the kernel lacks it. */
    u32 sock_daddr, sock_dport, sock_sport, sock_family, sock_protocol, sock_v6_daddr, sock_v6_saddr;
    /* Nor is this where the kernel loads no modules. */
    u32 module_name;
    u32 prog_type, prog_aux, aux_name;
    /* Bytes in `events`, and the agent's own process, from the loader. */
    u32 ring, agent;
    /* Where the context of the program for ptrace(2) says that it went well, and by which value. */
    u32 attach_at, attach_is;
    /* Where those of accept(2) and bind(2) have what the function returns: behind its arguments, whose number changed. */
    u32 accept_at, bind_at;
};
#define ABSENT 0xffffffff
#define SIGNAL_GROUP_EXIT 4

#define DEPTH 40

struct exec {
    u32 kind, pid, ppid, flags;
    u64 time, arguments;
    u32 uid, euid, gid, auid, session, zero;
    u8 tty[32];
};

INLINE u64 word(u64 from, u32 offset)
{
    native value = 0;
    read_kernel(&value, sizeof(value), from + offset);
    return value;
}

INLINE u32 half(u64 from, u32 offset)
{
    u32 value = 0;
    read_kernel(&value, sizeof(value), from + offset);
    return value;
}

/*
 * The way up from a file. In the map and not in registers, where the verifier would follow each value through each turn of the loop.
 */
struct walk {
    struct part part;
    u64 dentry, mount, root_dentry, root_mount;
    u32 length, zero;
};

/* Names from the file up to the process's root, each with its NUL. */
INLINE void path(const struct offsets *at, struct walk *walk, u32 kind, u64 of, u64 root)
{
    struct part *part = &walk->part;

    part->kind = kind;
    part->flags = CUT;
    walk->dentry = word(of, at->path_dentry);
    walk->mount = word(of, at->path_mnt) - at->mount_vfs;
    walk->root_dentry = word(root, at->path_dentry);
    walk->root_mount = word(root, at->path_mnt) - at->mount_vfs;
    walk->length = 0;
    if (word(walk->dentry, at->dentry_hash + at->hash_pprev) == 0)
        part->flags |= DELETED;
    for (int i = 0; i < DEPTH; i++) {
        u64 dentry = walk->dentry, mount = walk->mount;
        if (dentry == 0 || (dentry == walk->root_dentry && mount == walk->root_mount))
            goto whole;
        if (dentry == word(mount + at->mount_vfs, at->vfsmount_root)) {
            u64 above = word(mount, at->mount_parent);
            if (above == mount || above == 0)
                goto whole;
            walk->dentry = word(mount, at->mount_point);
            walk->mount = above;
            continue;
        }
        if (walk->length > PATH)
            goto end;
        long read = read_kernel_text(part->bytes + within(walk->length), NAME,
                                     word(dentry, at->dentry_name + at->qstr_name));
        if (read <= 0)
            goto end;
        walk->length += read;
        walk->dentry = word(dentry, at->dentry_parent);
        if (walk->dentry == dentry) {
            /* A file of no directory: memfd_create(2). */
            part->flags |= PSEUDO;
            goto whole;
        }
    }
    goto end;
whole:
    part->flags &= ~CUT;
end:
    put(at->ring, part, 16 + within(walk->length));
}

SECTION("exec")
int on_exec(u64 *context)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    struct walk *walk = lookup(&scratch, &zero);
    if (!at || !walk)
        return 0;

    struct part *part = &walk->part;
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
    path(at, walk, EXECUTABLE, word(mm, at->mm_exe_file) + at->file_path, root);
    path(at, walk, DIRECTORY, fs + at->fs_pwd, root);

    u64 from = word(mm, at->mm_arg_start), end = word(mm, at->mm_arg_end);
    part->kind = ARGUMENTS;
    part->flags = 0;
    for (int i = 0; i < CHUNKS && from < end; i++) {
        u64 size = end - from;
        if (size > CHUNK)
            size = CHUNK;
        if (!has_room(at->ring, size))
            break;
        if (read_user(part->bytes, size, from) != 0)
            break;
        put(at->ring, part, 16 + size);
        from += size;
        head.arguments += size;
    }
    if (from < end)
        head.flags = CUT;
    put(at->ring, &head, sizeof(head));
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
    put_cheap(at->ring, &exit, sizeof(exit));
    return 0;
}

/* The addresses of a socket: what the kernel compares in one go lies in one piece (include/net/inet_hashtables.h). */
INLINE void addresses(const struct offsets *at, struct connection *connection, u64 socket, u32 family)
{
    /* Not the number beside that of the other side: a connection that was refused has lost it by now. */
    unsigned short local = half(socket, at->sock_sport);
    connection->ports = half(socket, at->sock_dport) << 16 | __builtin_bswap16(local);
    if (family == AF_INET) {
        u64 both = 0;
        read_kernel(&both, sizeof(both), socket + at->sock_daddr);
        map_v4(connection->remote, both);
        map_v4(connection->local, both >> 32);
    } else if (at->sock_v6_daddr != ABSENT) {
        read_kernel(connection->remote, 16, socket + at->sock_v6_daddr);
        read_kernel(connection->local, 16, socket + at->sock_v6_saddr);
    }
}

INLINE u32 parent_of(const struct offsets *at)
{
    return half(word(current_task(), at->task_real_parent), at->task_tgid);
}

SECTION("state")
int on_state(u64 *context)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    if (!at)
        return 0;
    u64 socket = context[0];
    u32 from = context[1], to = context[2];
    /* Most changes are of no interest. */
    if (from != SYN_SENT && to != SYN_SENT && to != LISTEN)
        return 0;
    struct connection connection = {};
    if (!changes(&connection, socket, from, to, parent_of(at)))
        return 0;
    connection.who.protocol = half(socket, at->sock_protocol);
    addresses(at, &connection, socket, half(socket, at->sock_family) & 0xffff);
    put_connection(at->ring, &connection);
    return 0;
}

/* Variants of the program for sockets. */
#define SENDS 0
#define ACCEPTS 1
#define BINDS 2

/*
 * Something was sent, by whatever kind of socket. Or a connection that came in is handed to a process: the end of inet_csk_accept(). Or a
 * datagram socket gets its port: the end of udp_lib_get_port(). One that leaves the choice to the kernel will send rather than listen, as
 * all do that have no port yet.
 */
SECTION("socket")
int on_socket(u64 *context)
{
    u32 zero = 0, variant = chosen();
    const struct offsets *at = lookup(&offsets, &zero);
    if (!at)
        return 0;
    u64 socket = word((u64)context, variant == ACCEPTS ? at->accept_at : 0);
    if (!socket)
        return 0;
    u32 family = half(socket, at->sock_family) & 0xffff, detail = word((u64)context, 8);
    struct connection connection = {};
    connection.who.protocol = half(socket, at->sock_protocol);
    if (family != AF_INET && family != AF_INET6)
        return 0;
    if (variant != ACCEPTS && connection.who.protocol != UDP)
        return 0;
    if (variant == SENDS && (int)detail < 0)
        return 0;
    if (variant == BINDS && ((detail & 0xffff) == 0 || (u32)word((u64)context, at->bind_at) != 0))
        return 0;
    name_process(&connection.who, parent_of(at));
    addresses(at, &connection, socket, family);
    if (variant == BINDS) {
        connection.who.listens = 1;
        /* It is not yet where others are read from. */
        connection.ports = detail & 0xffff;
    }
    if (variant != SENDS || is_first(&connection))
        put_connection(at->ring, &connection);
    return 0;
}

struct deed_of {
    struct deed deed;
    u8 name[64];
};
#define PROGRAM_NAME 16
#define PROGRAM_LOADED 1
/* Variants of the program for these, besides the kinds of record. */
#define REMOVED 0
#define LOADED 1

/*
 * A kernel module was loaded or is removed.
 *
 * A process traces another: proc_ptrace_connector(), which is told of what went well, or the end of ptrace_attach().
 *
 * A program was loaded: the beginning of perf_event_bpf_event().
 *
 * A process that had no right of root's gets it: the beginning of commit_creds(). Not by an exec, whose event has the user: until that is
 * through, the new memory has no arguments. Threads of the kernel have no memory.
 */
SECTION("deed")
int on_deed(u64 *context)
{
    u32 zero = 0, variant = chosen();
    const struct offsets *at = lookup(&offsets, &zero);
    if (!at)
        return 0;
    u64 subject = word((u64)context, 0);
    struct deed_of record = {};
    u32 kind = variant, what = 0, size = sizeof(record.deed);
    if (variant == REMOVED || variant == LOADED) {
        kind = MODULE;
        what = variant;
        size = sizeof(record);
        read_kernel_text(record.name, sizeof(record.name), subject + at->module_name);
    } else if (variant == TRACED) {
        if ((u32)word((u64)context, at->attach_at) != at->attach_is)
            return 0;
        what = half(subject, at->task_tgid);
    } else if (variant == PROGRAM) {
        if ((u32)word((u64)context, 8) != PROGRAM_LOADED || current_ids() >> 32 == at->agent)
            return 0;
        what = half(subject, at->prog_type);
        size += PROGRAM_NAME;
        read_kernel(record.name, PROGRAM_NAME, word(subject, at->prog_aux) + at->aux_name);
    } else {
        u64 task = current_task(), cred = word(task, at->task_cred), mm = word(task, at->task_mm);
        what = half(cred, at->cred_uid);
        if (half(subject, at->cred_euid) != 0 || what == 0 || half(cred, at->cred_euid) == 0 || mm == 0 ||
            word(mm, at->mm_arg_start) == 0)
            return 0;
    }
    begin(&record.deed, kind, what);
    if (kind == MODULE || has_room(at->ring, size))
        put(at->ring, &record, size);
    else
        lose(PROCESSES);
    return 0;
}
