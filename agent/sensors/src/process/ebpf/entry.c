/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Execs and exits where the kernel has no BTF: nothing of the kernel's structures is known then.
 *
 * Arguments are read as execve(2) is called, from the caller's memory, and count once `sched_process_exec` says that the exec
 * succeeded. The guarantee is weaker than that of programs.c: another thread of the caller can change them between the two. What
 * neither tracepoint tells (directory, the resolved file, the session) the reader takes from /proc while the process is there.
 *
 * The arguments of system calls lie where linux/trace_events has them on every kernel of the word size; where the fields of the scheduler's
 * tracepoints lie is read from their `format` by tracefs.rs and passed in the map `offsets`.
 */

#include "shared.h"

/* Threads and the process that started them; the oldest make room. */
int parents SECTION("maps");
/* Threads in a system call that counts if it succeeds, with its record; likewise. */
int calls SECTION("maps");
/* The program that reads arguments. */
int programs SECTION("maps");

struct offsets {
    u32 exec_filename, exec_caller, fork_child;
    /* Where the first field of the tracepoints of sockets lies. */
    u32 socket;
    /* Bytes in `events`, and the agent's own process, from the loader. */
    u32 ring, agent;
};

/* Reads of one turn, of which there are 33. An argument longer than PIECE takes several. */
#define READS 64

struct call {
    u64 common;
    native number;
    native argument[6];
};

struct confirmed {
    u32 kind, pid, caller, parent;
    u64 time;
    u32 uid, gid;
    u8 name[PATH];
};

INLINE u32 field(u64 context, u32 offset)
{
    u32 value = 0;
    read_kernel(&value, sizeof(value), context + offset);
    return value;
}

/*
 * How far the arguments are read. In the map and not in registers, where the verifier would follow each value through each turn of
 * the loop.
 */
struct reading {
    struct part part;
    u64 argv, string;
    u32 length, index, parts, which;
};

/*
 * What a processor has of `scratch`. Since Linux 7.2 a program at a system call can be preempted (kernel/trace/bpf_trace.c,
 * trace_call_bpf_faultable). Then the kernel runs others in its midst, but not the same one.
 */
struct place {
    struct confirmed head;
    /* Arguments are being read for execve(2), for execveat(2): who sees that of the other one leaves them out. */
    volatile u32 running[2];
    struct reading reading;
};

INLINE int entered(void *context, u64 argv, u32 which)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    struct place *place = lookup(&scratch, &zero);
    if (!at || !place)
        return 0;
    place->running[which] = 1;
    if (place->running[!which]) {
        place->running[which] = 0;
        u32 none[4] = {ENTERED, (u32)current_ids(), CUT, 0};
        put(at->ring, none, sizeof(none));
        return 0;
    }
    struct reading *reading = &place->reading;
    reading->part.kind = ENTERED;
    /* The caller's thread: after the exec it is called otherwise. */
    reading->part.pid = (u32)current_ids();
    reading->part.zero = 0;
    reading->argv = argv;
    reading->string = 0;
    reading->length = reading->index = reading->parts = 0;
    reading->which = which;
    tail_call(context, &programs, 0);
    place->running[which] = 0;
    return 0;
}

SECTION("execve")
int on_execve(struct call *call)
{
    return entered(call, call->argument[1], 0);
}

SECTION("execveat")
int on_execveat(struct call *call)
{
    return entered(call, call->argument[2], 1);
}

/* Runs itself again until all is read, or the kernel says that it was often enough (33 times). */
SECTION("arguments")
int on_arguments(void *context)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    struct place *place = lookup(&scratch, &zero);
    if (!at || !place)
        return 0;

    struct reading *reading = &place->reading;
    struct part *part = &reading->part;
    part->flags = CUT;
    for (int i = 0; i < READS && reading->length <= CHUNK - PIECE; i++) {
        if (reading->string == 0) {
            if (read_user(&reading->string, sizeof(native), reading->argv + sizeof(native) * (u64)reading->index) != 0)
                goto end;
            if (reading->string == 0) {
                part->flags = 0;
                goto end;
            }
        }
        u8 *to = part->bytes + within(reading->length);
        long read = read_user_text(to, PIECE, reading->string);
        if (read < 0)
            goto end;
        if (read == 0) {
            /* Linux 6.1 (mm/maccess.c), but not 6.18, does not count the end of an empty one. */
            *to = 0;
            read = 1;
        }
        if (read == PIECE) {
            /* Its end was put there by the helper, and is written over next. */
            reading->length += PIECE - 1;
            reading->string += PIECE - 1;
        } else {
            reading->length += read;
            reading->index++;
            reading->string = 0;
        }
    }
    if (reading->length > CHUNK - PIECE) {
        if (reading->parts == CHUNKS - 1 || !has_room(at->ring, reading->length))
            goto end;
        part->flags = 0;
        int there = put(at->ring, part, 16 + within(reading->length));
        part->flags = CUT;
        reading->length = 0;
        /* Others took the room in the meantime. */
        if (!there)
            goto end;
        part->kind = ARGUMENTS;
        reading->parts++;
    }
    tail_call(context, &programs, 0);
end:
    if (!has_room(at->ring, reading->length) || !put(at->ring, part, 16 + within(reading->length))) {
        part->flags = CUT;
        put(at->ring, part, 16);
    }
    if (reading->which)
        place->running[1] = 0;
    else
        place->running[0] = 0;
    return 0;
}

SECTION("confirm")
int on_exec(void *context)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    struct place *place = lookup(&scratch, &zero);
    if (!at || !place)
        return 0;
    struct confirmed *head = &place->head;
    u64 ids = current_ids(), user = current_user();
    head->kind = CONFIRMED;
    head->pid = ids >> 32;
    head->caller = field((u64)context, at->exec_caller);
    const u32 *parent = lookup(&parents, &head->pid);
    head->parent = parent ? *parent : 0;
    head->time = boot_time();
    head->uid = (u32)user;
    head->gid = user >> 32;
    /* `__data_loc`: the lower half is the offset. */
    u64 name = (u64)context + (field((u64)context, at->exec_filename) & 0xffff);
    long read = read_kernel_text(head->name, PATH, name);
    if (read < 0)
        read = 0;
    put(at->ring, head, 32 + ((u32)read & (2 * PATH - 1)));
    return 0;
}

/* Arguments of a call that failed must not become those of another: a 32-bit one, whose arguments nobody reads. */
SECTION("failed")
int on_execve_end(const struct call *call)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    if (!at || (native_int)call->argument[0] >= 0)
        return 0;
    struct exit failed = {.kind = FAILED, .pid = (u32)current_ids()};
    put(at->ring, &failed, 8);
    return 0;
}

SECTION("fork")
int on_fork(void *context)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    if (!at)
        return 0;
    u32 child = field((u64)context, at->fork_child), parent = current_ids() >> 32;
    update(&parents, &child, &parent, 0);
    return 0;
}

SECTION("exit_group")
int on_exit_group(const struct call *call)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    if (!at)
        return 0;
    struct exit exit = {.kind = EXIT, .time = boot_time()};
    exit.pid = current_ids() >> 32;
    exit.status = (call->argument[0] & 0xff) << 8;
    put_cheap(at->ring, &exit, sizeof(exit));
    return 0;
}

/*
 * The tracepoint sock:inet_sock_set_state, as every kernel has it since Linux 5.6, behind what tracepoints have in common; the loader
 * compares. The latter is larger in real-time kernels up to 6.1, which have CONFIG_PREEMPT_LAZY of their own.
 */
struct state {
    native socket;
    u32 from, to;
    unsigned short local_port, remote_port, family, protocol;
    u32 local, remote;
    u32 local6[4], remote6[4];
};

INLINE u32 parent_of(void)
{
    u32 pid = current_ids() >> 32;
    const u32 *parent = lookup(&parents, &pid);
    return parent ? *parent : 0;
}

SECTION("state")
int on_state(void *context)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    struct state state = {};
    if (!at || read_kernel(&state, sizeof(state), (u64)context + at->socket) != 0)
        return 0;
    u32 from = state.from, to = state.to;
    if (from != SYN_SENT && to != SYN_SENT && to != LISTEN)
        return 0;
    struct connection connection = {};
    if (!changes(&connection, state.socket, from, to, parent_of()))
        return 0;
    connection.who.protocol = state.protocol;
    /* Here both are as programs have them. */
    connection.ports = state.local_port | (u32)__builtin_bswap16(state.remote_port) << 16;
    if (state.family == AF_INET) {
        map_v4(connection.local, state.local);
        map_v4(connection.remote, state.remote);
    } else {
        for (int i = 0; i < 4; i++) {
            connection.local[i] = state.local6[i];
            connection.remote[i] = state.remote6[i];
        }
    }
    put_connection(at->ring, &connection);
    return 0;
}

/* The tracepoint sock:sock_send_length, since Linux 6.3, likewise. */
struct send {
    native socket;
    unsigned short family, protocol;
    int length;
};

/*
 * Something was sent, by whatever kind of socket. Where a socket has its IPv4 addresses, its ports and its family is the same on every
 * kernel (include/net/sock.h, struct sock_common); where it has those of IPv6 is not, so they are left out.
 */
SECTION("send")
int on_send(void *context)
{
    u32 zero = 0;
    const struct offsets *at = lookup(&offsets, &zero);
    struct send send = {};
    if (!at || read_kernel(&send, sizeof(send), (u64)context + at->socket) != 0)
        return 0;
    if (send.protocol != UDP || send.length < 0 || (send.family != AF_INET && send.family != AF_INET6))
        return 0;
    struct connection connection = {};
    name_process(&connection.who, parent_of());
    connection.who.protocol = UDP;
    u32 ports = field(send.socket, 12);
    connection.ports = ports << 16 | ports >> 16;
    if (send.family == AF_INET) {
        map_v4(connection.remote, field(send.socket, 0));
        map_v4(connection.local, field(send.socket, 4));
    }
    if (is_first(&connection))
        put_connection(at->ring, &connection);
    return 0;
}

#define PTRACE_ATTACH 16
#define PTRACE_SEIZE 0x4206
#define PROG_LOAD 5
/* In `union bpf_attr`, linux/bpf.h; older callers' has no name. */
#define PROG_NAME 48

/* A call of ptrace(2) or bpf(2) counts if it succeeds. */
SECTION("called")
int on_call(const struct call *call)
{
    u32 zero = 0, kind = chosen(), thread = current_ids();
    const struct offsets *at = lookup(&offsets, &zero);
    struct program record = {};
    /* The former's second argument is a thread's number, as the caller knows it. */
    u32 request = call->argument[0], what = call->argument[1];
    if (kind == TRACED) {
        if (request != PTRACE_ATTACH && request != PTRACE_SEIZE)
            return 0;
    } else {
        if (!at || request != PROG_LOAD || current_ids() >> 32 == at->agent)
            return 0;
        read_user(&what, sizeof(what), call->argument[1]);
        if ((u32)call->argument[2] >= PROG_NAME + sizeof(record.name))
            read_user(record.name, sizeof(record.name), call->argument[1] + PROG_NAME);
    }
    begin(&record.deed, kind, what);
    update(&calls, &thread, &record, 0);
    return 0;
}

SECTION("returned")
int on_return(const struct call *call)
{
    u32 zero = 0, thread = current_ids();
    const struct offsets *at = lookup(&offsets, &zero);
    const struct program *known = lookup(&calls, &thread);
    if (!at || !known)
        return 0;
    struct program record = *known;
    delete(&calls, &thread);
    if ((native_int)call->argument[0] >= 0)
        put_cheap(at->ring, &record, sizeof(record));
    return 0;
}
