//go:build ignore

// The hub of an interface: the one program that looks at each packet for all captures
// that share it, and gives it to those that it concerns. docs/HUB.md says why.
//
// It is a filter of packet sockets, and lets nothing into their own queues. What a
// capture may have of a frame its own scope's program says, which is called here with
// the frame: whatever is wrong with the lists of addresses, a capture loses by it and
// sees no more. Only of frames for many, which are in scope whatever the addresses,
// this program itself says whose they are.

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define MEMBERS 4096 /* at an interface; keep in sync with hub_linux.go */
#define SHARERS 8    /* of an address; keep in sync with hub_linux.go */
#define OWN_SOCKETS 2 /* that captures have; keep in sync with roster_linux.go */
#define WORDS (MEMBERS / 64)
#define DIGEST_BITS 14
#define DIGESTS (1 << DIGEST_BITS)

/* EtherTypes (IEEE 802 numbers). */
#define ETHER_IPV4 0x0800
#define ETHER_ARP 0x0806
#define ETHER_RARP 0x8035
#define ETHER_IPV6 0x86dd

#define ETHER_LEN 14
#define IPV4_LEN 20
#define PACKET_OUTGOING 4 /* linux/if_packet.h */

/* What a capture wants; keep in sync with hub_linux.go. */
enum {
	RECEIVED_ONLY = 1, /* nothing that this host sends */
	GROUP_IPV4 = 2,    /* IPv4 frames to many are in scope */
	GROUP_FULL = 4,    /* IPv6 frames to many are, and ARP and RARP frames to all */
	CLOSED = 8,        /* nothing yet, whatever else is here */
};

/* From this bit on: 1 more than the place of the socket of its own from which it moves, or 0. */
#define MOVES 4

/* Captures that share something: an address in their scopes, for instance. */
struct sharers {
	__u16 id[SHARERS]; /* number of the capture plus 1; the first 0 ends it */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* IPv4 address, network order */
	__type(value, struct sharers);
} owners4 SEC(".maps");

struct address6 {
	__u64 half[2]; /* network order */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address6);
	__type(value, struct sharers);
} owners6 SEC(".maps");

/* Digests of addresses: for those that nobody has ever had it is mostly 0, and the other
 * look-up is saved, which takes longer. Set before an address has an owner, and
 * never taken back. Keep in sync with hub_linux.go. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DIGESTS);
	__type(key, __u32);
	__type(value, __u8);
} known SEC(".maps");

/* The captures whose programs are shown all frames, their scopes being more than single
 * addresses, or those having too many owners. A hash of one entry: what is looked up in
 * a hash stays as it is as long as the program runs, which the value of an array does
 * not. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* 0 */
	__type(value, struct sharers);
} watchers SEC(".maps");

/* By the number of the capture: its scope's program, with the user's behind it. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, MEMBERS);
	__type(key, __u32);
	__type(value, __u32);
} scopes SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

/* ... where its frames go, */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MEMBERS);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

/* ... what it wants, */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MEMBERS);
	__type(key, __u32);
	__type(value, __u32);
} wants SEC(".maps");

struct count {
	__u64 received; /* frames for it, with those dropped */
	__u64 dropped;  /* of those, frames that found no room */
	__u64 group;    /* of those received, frames to many, that its program was not asked about */
};

/* ... and what it got. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MEMBERS);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

/* Which captures may want a kind of frames for many: a bit each, in words of 64; what
 * says that they do is in wants. Kinds are received IPv4, other received, sent IPv4,
 * other sent. Keep in sync with hub_linux.go. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4 * WORDS);
	__type(key, __u32); /* kind * WORDS + number / 64 */
	__type(value, __u64);
} many SEC(".maps");

/* By the place of a capture's own socket: whether its frames on this CPU are the hub's,
 * and no longer that socket's. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OWN_SOCKETS);
	__type(key, __u32);
	__type(value, __u64);
} moved SEC(".maps");

struct about {
	__u32 limit;    /* numbers of captures are below this one */
	__u32 watched;  /* if 0 nobody is in watchers */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct about);
} hubs SEC(".maps");

/* Frames that were looked at: received, and sent. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

/* What is in a ring: a header, and bytes of the frame. Behind them there may be more,
 * which mean nothing. Keep in sync with hubring_linux.go. */
struct record {
	__u64 time;      /* ns of TAI since 1970 */
	__u32 len;       /* bytes of the frame on the wire */
	__u32 kept;      /* ... and of those here */
	__u16 protocol;  /* EtherType as the kernel sees it, network order */
	__u8 type;       /* PACKET_* of linux/if_packet.h */
	__u8 unfiltered; /* the user's program is still to be run */
	/* A VLAN tag that the kernel has taken out of the frame. */
	__u16 tpid; /* its TPID, network order; 0: there is none */
	__u16 tci;
	__u8 frame[];
};

/* A frame, and what was found out about it. */
struct frame {
	struct __sk_buff *skb;
	__u32 is; /* which captures want it whatever the addresses: GROUP_* or 0 */
	__u32 outgoing;
	struct sharers *watchers; /* they have been asked already; may be NULL */

	/* Where the walk through many is. */
	__u32 word;
	__u64 bits;
};

/* wake says whether who reads the ring is to be woken for what was added to it: if it
 * has read all before (what 0 means), and when the ring is a quarter full, which some
 * CPUs may find at the same time. */
static __always_inline __u64 wake(void *ring, __u64 added)
{
	__u64 waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
	__u64 enough = bpf_ringbuf_query(ring, BPF_RB_RING_SIZE) / 4;

	return waiting - enough < 8 * added ? BPF_RB_FORCE_WAKEUP : 0;
}

/* The room in rings is of a few sizes, since the verifier wants to know it. */
#define ROOM(size)                                                                     \
	if (kept <= size) {                                                            \
		struct record *r = bpf_ringbuf_reserve(ring, sizeof(*r) + size, 0);    \
		if (!r)                                                                \
			goto dropped;                                                  \
		r->time = now;                                                         \
		r->len = skb->len;                                                     \
		r->kept = kept;                                                        \
		r->protocol = skb->protocol;                                           \
		r->type = skb->pkt_type;                                               \
		r->unfiltered = unfiltered;                                            \
		r->tpid = skb->vlan_present ? skb->vlan_proto : 0;                     \
		r->tci = skb->vlan_tci;                                                \
		if (bpf_skb_load_bytes(skb, 0, r->frame, kept)) {                      \
			bpf_ringbuf_discard(r, 0);                                     \
			goto dropped;                                                  \
		}                                                                      \
		bpf_ringbuf_submit(r, wake(ring, sizeof(*r) + size));                  \
		return 0;                                                              \
	}

/* put gives a capture so many bytes of the frame. */
__noinline int put(struct __sk_buff *skb, __u32 id, __u32 most, __u32 unfiltered)
{
	struct count *count = bpf_map_lookup_elem(&counts, &id);
	void *ring = bpf_map_lookup_elem(&rings, &id);
	__u64 now = bpf_ktime_get_tai_ns();
	__u64 kept = most;

	if (!count || !ring)
		return 0;
	__sync_fetch_and_add(&count->received, 1);
	if (unfiltered)
		__sync_fetch_and_add(&count->group, 1);
	if (kept > skb->len)
		kept = skb->len;
	if (kept == 0)
		return 0;
	ROOM(104)
	ROOM(232)
	ROOM(616)
	ROOM(1128)
	ROOM(1544)
	ROOM(2088)
	ROOM(4136)
	ROOM(9256)
	ROOM(16424)
	ROOM(33000)
	ROOM(65640)
	ROOM(262144)
dropped:
	__sync_fetch_and_add(&count->dropped, 1);
	return 0;
}

/* ask runs the program of a capture's scope. That has its own stack and ends here: so
 * the calls of many can follow each other. 33 of them the kernel allows. */
__noinline int ask(struct __sk_buff *skb, __u32 id)
{
	int none = 0;

	asm volatile("" : "+r"(none)); /* else the compiler thinks that it knows the result */
	bpf_tail_call(skb, &scopes, id);
	return none;
}

static __always_inline int unwanted(__u32 outgoing, __u32 wants)
{
	return outgoing && (wants & RECEIVED_ONLY);
}

/* opened reports whether a capture gets frames yet. If it comes from a socket of its own
 * this is the moment in which it moves, on this CPU: that socket is asked next about the
 * same frame, nothing comes in between, and it leaves the frame to the hub. */
static __always_inline int opened(__u32 wants)
{
	__u32 place = wants >> MOVES;
	__u64 *mine;

	if (wants & CLOSED)
		return 0;
	if (place--) {
		mine = bpf_map_lookup_elem(&moved, &place);
		if (mine)
			*mine = 1;
	}
	return 1;
}

static __always_inline int among(const struct sharers *s, __u32 id)
{
	int found = 0;

#pragma unroll
	for (int i = 0; i < SHARERS; i++)
		found |= s->id[i] == id;
	return found;
}

/* deliver shows captures the frame, but for those that have seen it already. Not being
 * static, it is verified once and not where it is called. */
__noinline int deliver(struct __sk_buff *skb, const struct sharers *to, const struct sharers *but, const struct sharers *nor, __u32 is)
{
	__u32 outgoing = skb->pkt_type == PACKET_OUTGOING;
	__u32 verdict, id, *want;

	if (!to)
		return 0;
	for (int i = 0; i < SHARERS; i++) {
		id = to->id[i];
		if (!id)
			return 0;
		if ((but && among(but, id)) || (nor && among(nor, id)))
			continue;
		id--;
		want = bpf_map_lookup_elem(&wants, &id);
		if (!want || unwanted(outgoing, *want) || (is & *want) || !opened(*want))
			continue;
		verdict = ask(skb, id);
		if (verdict)
			put(skb, id, verdict, 0);
	}
	return 0;
}

/* one gives one capture a frame to many. */
static long one(__u32 bit, struct frame *f)
{
	__u32 id = f->word * 64 + bit, *want;

	if (!(f->bits >> (bit & 63) & 1))
		return 0;
	if (f->watchers && among(f->watchers, id + 1))
		return 0;
	want = bpf_map_lookup_elem(&wants, &id);
	if (want && (*want & f->is) && !unwanted(f->outgoing, *want) && opened(*want))
		put(f->skb, id, -1, 1);
	return 0;
}

static long sixtyfour(__u32 word, struct frame *f)
{
	__u32 kind = 2 * f->outgoing + (f->is == GROUP_FULL), at = kind * WORDS + word;
	__u64 *bits = bpf_map_lookup_elem(&many, &at);

	if (!bits || !*bits)
		return 0;
	f->word = word;
	f->bits = *bits;
	bpf_loop(64, one, f, 0);
	return 0;
}

static __always_inline void deliver_group(struct frame *f, const struct about *about)
{
	if (f->is)
		bpf_loop((about->limit + 63) / 64, sixtyfour, f, 0);
}

static __always_inline void deliver_pair(struct frame *f, const struct about *about, const struct sharers *src, const struct sharers *dst)
{
	deliver(f->skb, src, f->watchers, NULL, f->is);
	deliver(f->skb, dst, f->watchers, src, f->is);
	deliver_group(f, about);
}

static __always_inline int is_known(__u32 address)
{
	__u32 digest = (address * 0x9e3779b1u) >> (32 - DIGEST_BITS); /* multiplicative hashing, by the golden ratio */
	__u8 *had = bpf_map_lookup_elem(&known, &digest);

	return had && *had;
}

static __always_inline struct sharers *owners_of4(__u32 *address)
{
	return is_known(*address) ? bpf_map_lookup_elem(&owners4, address) : NULL;
}

static __always_inline struct sharers *owners_of6(struct address6 *address)
{
	__u64 folded = address->half[0] ^ address->half[1];

	return is_known(folded ^ folded >> 32) ? bpf_map_lookup_elem(&owners6, address) : NULL;
}

/* The verdict on what goes into the socket's own queue. */
#define NOTHING 0

SEC("socket")
int hub(struct __sk_buff *skb)
{
	struct frame f = {.skb = skb};
	struct about *about;
	__u64 *n;
	__u8 room[2 + ETHER_LEN + IPV4_LEN] __attribute__((aligned(8)));
	__u8 *start = room + 2; /* so that IPv4 addresses are aligned */
	__u16 protocol;
	__u32 zero = 0;

	f.outgoing = skb->pkt_type == PACKET_OUTGOING;
	n = bpf_map_lookup_elem(&seen, &f.outgoing);
	if (n)
		*n += 1;
	about = bpf_map_lookup_elem(&hubs, &zero);
	if (!about)
		return NOTHING;
	if (about->watched) {
		f.watchers = bpf_map_lookup_elem(&watchers, &zero);
		deliver(skb, f.watchers, NULL, NULL, 0);
	}
	if (skb->vlan_present || bpf_skb_load_bytes(skb, 0, start, ETHER_LEN + IPV4_LEN))
		return NOTHING;
	protocol = bpf_ntohs(*(__u16 *)(start + 12));
	if (protocol == ETHER_IPV4) {
		__u32 *src = (__u32 *)(start + ETHER_LEN + 12), *dst = src + 1;

		if (start[0] & 1)
			f.is = GROUP_IPV4;
		deliver_pair(&f, about, owners_of4(src), owners_of4(dst));
	} else if (protocol == ETHER_IPV6) {
		struct address6 pair[2];

		if (bpf_skb_load_bytes(skb, ETHER_LEN + 8, pair, sizeof(pair)))
			return NOTHING;
		if (start[0] & 1)
			f.is = GROUP_FULL;
		deliver_pair(&f, about, owners_of6(&pair[0]), owners_of6(&pair[1]));
	} else if (protocol == ETHER_ARP || protocol == ETHER_RARP) {
		__u32 sender, target;

		if (bpf_skb_load_bytes(skb, ETHER_LEN + 14, &sender, 4) || bpf_skb_load_bytes(skb, ETHER_LEN + 24, &target, 4))
			return NOTHING;
		if ((*(__u16 *)start & *(__u16 *)(start + 2) & *(__u16 *)(start + 4)) == 0xffff)
			f.is = GROUP_FULL;
		deliver_pair(&f, about, owners_of4(&sender), owners_of4(&target));
	}
	return NOTHING;
}

char _license[] SEC("license") = "Apache-2.0";
