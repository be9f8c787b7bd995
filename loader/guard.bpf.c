//go:build ignore

// The two guards of captive sockets. TestTheOptionsOfACaptiveAreTheHarmlessOnes
// holds the list of options to what it should be.

#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define SOL_SOCKET 1
#define SOL_PACKET 263
#define AF_PACKET 17

#define TCX_NEXT -1
#define TCX_DROP 2

/* asm-generic/socket.h */
#define SO_BROADCAST 6
#define SO_RCVBUF 8
#define SO_RCVLOWAT 18
#define SO_RCVTIMEO_OLD 20
#define SO_ATTACH_FILTER 26
#define SO_DETACH_FILTER 27
#define SO_TIMESTAMP_OLD 29
#define SO_TIMESTAMPNS_OLD 35
#define SO_RXQ_OVFL 40
#define SO_MARK 36
#define SO_LOCK_FILTER 44
#define SO_ATTACH_BPF 50
#define SO_TIMESTAMP_NEW 63
#define SO_TIMESTAMPNS_NEW 64
#define SO_RCVTIMEO_NEW 66

#define ENOMEM 12

/* The mark of captive sockets (SO_MARK of socket(7)), "jtap". Who would change it
 * needs CAP_NET_ADMIN or CAP_NET_RAW where the socket is. */
#define MARK 0x6a746170

/* The largest ring that a holder may ask for, bytes. */
#define MAX_RING (32ull << 20)

/* A captive socket. */
struct captive {
	__u64 netns;    /* inode of its network namespace */
	__u32 program;  /* number of its scope's program, which ends with the socket */
	__u32 rules;    /* digest of what of the scope cannot be changed */
	char label[64]; /* whose it is, for who takes it up */
};

/* Sockets by their cookies. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct captive);
} captives SEC(".maps");

/* Where sockets are in the kernel, for the programs of their scopes: see
 * bpf/ebpf/captive.go. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} places SEC(".maps");

enum { refuse, allow };

/* What is no captive yet becomes one by its mark. */
static __always_inline int unmarked(struct bpf_sockopt *ctx)
{
	__u64 *place;

	if (ctx->level != SOL_SOCKET || ctx->optname != SO_MARK)
		return allow;
	place = bpf_sk_storage_get(&places, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (place)
		*place = (__u64)ctx->sk;
	return allow;
}

/* A ring is kernel memory that no cgroup is charged for. ENOMEM makes libpcap
 * ask for less. */
static __always_inline int ring(struct bpf_sockopt *ctx)
{
	struct tpacket_req *req = ctx->optval;

	if ((void *)(req + 1) > ctx->optval_end)
		return allow; /* too short: the kernel refuses it */
	if ((__u64)req->tp_block_size * req->tp_block_nr <= MAX_RING)
		return allow;
	bpf_set_retval(-ENOMEM);
	return refuse;
}

/* What a holder may ask of a captive socket. Packet sockets with the mark that
 * were made in the warden's cgroup are captive ones, whoever holds them now. The
 * mark comes last of what the warden itself asks. */
SEC("cgroup/setsockopt")
int options(struct bpf_sockopt *ctx)
{
	if (!ctx->sk || ctx->sk->family != AF_PACKET)
		return allow;
	if (ctx->sk->mark != MARK)
		return unmarked(ctx);
	if (ctx->level == SOL_PACKET) {
		switch (ctx->optname) {
		case PACKET_RX_RING:
			return ring(ctx);
		case PACKET_VERSION:
		case PACKET_RESERVE:
		case PACKET_AUXDATA:
		case PACKET_ORIGDEV:
		case PACKET_TIMESTAMP:
		case PACKET_IGNORE_OUTGOING:
			return allow;
		case PACKET_ADD_MEMBERSHIP:
		case PACKET_DROP_MEMBERSHIP:
			/* Programs insist that it succeeds, so it does, and does nothing. */
			ctx->optlen = -1;
			return allow;
		}
		return refuse;
	}
	if (ctx->level == SOL_SOCKET) {
		switch (ctx->optname) {
		case SO_BROADCAST: /* nothing, to packet sockets; libdnet insists */
		case SO_RCVBUF:
		case SO_RCVLOWAT:
		case SO_RCVTIMEO_OLD:
		case SO_RCVTIMEO_NEW:
		case SO_TIMESTAMP_OLD:
		case SO_TIMESTAMP_NEW:
		case SO_TIMESTAMPNS_OLD:
		case SO_TIMESTAMPNS_NEW:
		case SO_RXQ_OVFL:
			return allow;
		case SO_ATTACH_FILTER: /* the lock on the filter answers */
		case SO_DETACH_FILTER:
		case SO_ATTACH_BPF:
		case SO_LOCK_FILTER:
			return allow;
		}
	}
	return refuse;
}

/* Frames that a captive socket sends end here: they have its mark (packet_snd
 * and others in net/packet/af_packet.c). */
SEC("tcx/egress")
int sending(struct __sk_buff *skb)
{
	return skb->mark == MARK ? TCX_DROP : TCX_NEXT;
}

char _license[] SEC("license") = "Apache-2.0";
