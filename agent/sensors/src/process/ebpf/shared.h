/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What programs.c and entry.c have in common: the kernel's helpers, the records, and how they get into the ring.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

/*
 * A pointer, or a number of the type `long`, as the kernel has it. The programs themselves compute in 64 bits everywhere. Objects for
 * 32-bit kernels are compiled with -DBITS=32.
 */
#if BITS == 32
typedef u32 native;
typedef int native_int;
#else
typedef u64 native;
typedef long long native_int;
#endif

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* Maps are made by the loader; only their names matter here. */
int events SECTION("maps");
int scratch SECTION("maps");
int counters SECTION("maps");
int offsets SECTION("maps");
/* Sockets that are being connected, with who does it; the oldest make room. */
int sockets SECTION("maps");
/* To whom datagrams were sent lately, likewise. */
int sent SECTION("maps");
/* No map: the loader puts a number in its place, where one program serves several functions of the kernel. */
int variant SECTION("maps");

/* Helpers by number, linux/bpf.h. */
static void *(*lookup)(void *map, const void *key) = (void *)1;
static long (*update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*delete)(void *map, const void *key) = (void *)3;
static u32 (*current_processor)(void) = (void *)8;
static long (*tail_call)(void *context, void *programs, u32 index) = (void *)12;
static u64 (*current_ids)(void) = (void *)14;
static u64 (*current_user)(void) = (void *)15;
static long (*current_name)(void *to, u32 size) = (void *)16;
static u64 (*current_task)(void) = (void *)35;
static long (*read_user)(void *to, u32 size, u64 from) = (void *)112;
static long (*read_kernel)(void *to, u32 size, u64 from) = (void *)113;
static long (*read_user_text)(void *to, u32 size, u64 from) = (void *)114;
static long (*read_kernel_text)(void *to, u32 size, u64 from) = (void *)115;
static u64 (*boot_time)(void) = (void *)125;
static long (*output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static u64 (*query)(void *ring, u64 flags) = (void *)134;

#define FORCE_WAKEUP 2
#define AVAILABLE_DATA 0

/*
 * Kinds of record. An exec is its parts, then its head: once the head is there, nothing more comes. ENTERED is the first part of an
 * exec's arguments before it is known to succeed, CONFIRMED its head; FAILED takes the former back.
 */
#define EXECUTABLE 1
#define DIRECTORY 2
#define ARGUMENTS 3
#define EXEC 4
#define EXIT 5
#define ENTERED 6
#define CONFIRMED 7
#define FAILED 8
#define MODULE 9
#define CONNECTION 10
#define TRACED 11
#define PROGRAM 12
#define CREDENTIALS 13

#define CHUNK 16384
#define CHUNKS 12
#define NAME 256
/* The most one read adds behind a full chunk. */
#define PIECE 1024
#define PATH 4096

struct part {
    u32 kind, pid, flags, zero;
    u8 bytes[CHUNK + PIECE];
};
#define DELETED 1
#define PSEUDO 2
#define CUT 4

struct exit {
    u32 kind, pid;
    u64 time;
    u32 status, zero;
};

/* What a process does to the kernel or to another one; some have more behind it. */
struct deed {
    u32 kind, pid, what, zero;
    u64 time;
    u8 command[16];
};

struct program {
    struct deed deed;
    u8 name[16];
};

/* The number, which the compiler must not take for an address. */
INLINE u32 chosen(void)
{
    u64 number = (u64)&variant;
    asm volatile("" : "+r"(number));
    return number;
}

/* A place in a chunk. Hidden from the compiler, which would leave the bound out where it knows better than the verifier. */
INLINE u64 within(u64 length)
{
    asm volatile("" : "+r"(length));
    return length & (CHUNK - 1);
}

/* What is counted where: records of processes, and of connections, whose loss costs nothing but a look at /proc. */
#define PROCESSES 0
#define CONNECTIONS 1

INLINE void lose(u32 which)
{
#if BITS == 32
    /*
     * The just-in-time compilers of 32-bit kernels have no atomic operations, and programs that call each other must all be compiled or
     * all be interpreted. There are at most 64 processors, and each runs one program at a time; since Linux 7.0 one may come in
     * another's midst, and of two losses at once one may be counted.
     */
    which += current_processor() % 64 * 2;
    u64 *lost = lookup(&counters, &which);
    if (lost)
        *lost += 1;
#else
    u64 *lost = lookup(&counters, &which);
    if (lost)
        __sync_fetch_and_add(lost, 1);
#endif
}

/*
 * The reader waits for age by itself (the ring wakes it for the first record only): it is woken early when half is full. `ring` is
 * the ring's size. False when there was no room.
 */
INLINE int put(u32 ring, void *data, u64 size)
{
    u64 flags = query(&events, AVAILABLE_DATA) > ring / 2 ? FORCE_WAKEUP : 0;
    if (output(&events, data, size, flags) == 0)
        return 1;
    lose(PROCESSES);
    return 0;
}

/* The last quarter is for the heads of execs: neither long arguments nor process ends, which can be found missing, push those out. */
INLINE int has_room(u32 ring, u64 size)
{
    return query(&events, AVAILABLE_DATA) + size <= ring / 4 * 3;
}

INLINE void put_cheap(u32 ring, void *data, u64 size)
{
    if (has_room(ring, size))
        put(ring, data, size);
    else
        lose(PROCESSES);
}

INLINE void begin(struct deed *deed, u32 kind, u32 what)
{
    deed->kind = kind;
    deed->pid = current_ids() >> 32;
    deed->what = what;
    deed->zero = 0;
    deed->time = boot_time();
    current_name(deed->command, sizeof(deed->command));
}

/* Who connects, accepts, listens or sends, then the addresses: IPv4 as IPv6 has it mapped, none where they are not known. */
struct who {
    u32 kind, pid, parent;
    u8 protocol, listens;
    unsigned short zero;
    u64 time;
    u8 command[16];
};

struct connection {
    struct who who;
    u32 local[4], remote[4];
    /* The device's is in the lower half, the other one in the upper half and as it is on the wire. */
    u32 ports, zero;
};

/* States of TCP, net/tcp_states.h. */
#define SYN_SENT 2
#define LISTEN 10
#define UDP 17
#define AF_INET 2
#define AF_INET6 10
/* Connection tracking forgets a silent flow of datagrams after 30 seconds; what is sent after that is told again. */
#define SILENCE 25000000000ULL

INLINE void name_process(struct who *who, u32 parent)
{
    who->kind = CONNECTION;
    who->pid = current_ids() >> 32;
    who->parent = parent;
    who->time = boot_time();
    current_name(who->command, sizeof(who->command));
}

/* At most half of the ring: a flood of connections leaves room for arguments. */
INLINE void put_connection(u32 ring, struct connection *connection)
{
    if (query(&events, AVAILABLE_DATA) > ring / 2 - sizeof(*connection)) {
        lose(CONNECTIONS);
        return;
    }
    if (output(&events, connection, sizeof(*connection), 0) != 0)
        lose(CONNECTIONS);
}

/*
 * A TCP socket changes its state. The process is that of the call while it is SYN_SENT or begins to LISTEN; what comes after the
 * former happens whenever packets come, but has the port. True when there is something to tell, once the addresses are there.
 */
INLINE int changes(struct connection *connection, u64 socket, u32 from, u32 to, u32 parent)
{
    struct who *who = &connection->who;
    if (to == SYN_SENT || to == LISTEN) {
        name_process(who, parent);
        who->listens = to == LISTEN;
        if (to == SYN_SENT)
            update(&sockets, &socket, who, 0);
        return to == LISTEN;
    }
    if (from != SYN_SENT)
        return 0;
    const struct who *known = lookup(&sockets, &socket);
    if (!known) {
        lose(CONNECTIONS);
        return 0;
    }
    *who = *known;
    delete(&sockets, &socket);
    return 1;
}

INLINE void map_v4(u32 *to, u32 address)
{
    to[2] = 0xffff0000;
    to[3] = address;
}

struct datagram {
    u32 pid, ports;
    u32 remote[4];
};

/* The first datagram from this port to there for a while. */
INLINE int is_first(const struct connection *connection)
{
    struct datagram datagram = {.pid = connection->who.pid, .ports = connection->ports};
    __builtin_memcpy(datagram.remote, connection->remote, sizeof(datagram.remote));
    const u64 *last = lookup(&sent, &datagram);
    if (last && connection->who.time - *last < SILENCE)
        return 0;
    update(&sent, &datagram, &connection->who.time, 0);
    return 1;
}

char terms[] SECTION("license") = "GPL";
