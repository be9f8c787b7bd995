//go:build ignore

// The rules of a jail that shares the host's network: its sockets have its
// addresses and no others. Beside each is FreeBSD's own, of sys/kern/kern_jail.c,
// sys/netinet/in_jail.c and sys/netinet6/in6_jail.c.
//
// All programs are those of one jail's cgroup, and follow the sockets that are made
// in it.

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define SOL_IPV6 41
#define IPV6_V6ONLY 26
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define EPERM 1
#define EPROTONOSUPPORT 93
#define EAFNOSUPPORT 97
#define EADDRNOTAVAIL 99

/* An address of IPv6, or one of IPv4 mapped into it (RFC 4291, 2.5.5.2), in
 * network order. */
struct address {
	__be32 w[4];
};

/* What a jail has. Keep in sync with jail in confine_linux.go. */
struct jail {
	struct address first4, first6;
	__u32 n4, n6;       /* how many of each */
	__u32 v6only;       /* net.ipv6.bindv6only of the host (ip-sysctl.rst) */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct jail);
} jails SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u8);
} addresses SEC(".maps");

/* IPV6_V6ONLY of sockets that have set it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, int);
} v6only SEC(".maps");

enum { refuse, allow };

static __always_inline int fail(int errno)
{
	bpf_set_retval(-errno);
	return refuse;
}

static __always_inline struct jail *this_jail(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&jails, &zero);
}

static __always_inline struct address mapped(__be32 ip4)
{
	return (struct address){ { 0, 0, bpf_htonl(0xffff), ip4 } };
}

static __always_inline int is_mapped(struct address *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == bpf_htonl(0xffff);
}

static __always_inline int is_any(struct address *a)
{
	return (a->w[0] | a->w[1] | a->w[2] | a->w[3]) == 0;
}

static __always_inline int is_loopback(struct address *a)
{
	return (a->w[0] | a->w[1] | a->w[2]) == 0 && a->w[3] == bpf_htonl(1);
}

/* prison_check_ip4, prison_check_ip6: 0, or EADDRNOTAVAIL if the address does not
 * belong to the jail. */
static __always_inline int check(struct address *a)
{
	return bpf_map_lookup_elem(&addresses, a) ? 0 : EADDRNOTAVAIL;
}

/* prison_local_ip4: 127.0.0.1 is the jail's first address; 0.0.0.0 is its address
 * if it has one only, and else stays, and packets to what is not the jail's are
 * kept from the socket; others must belong to the jail. */
static __always_inline int local4(struct jail *j, __be32 *ip4)
{
	struct address a = mapped(*ip4);

	if (!j->n4)
		return EAFNOSUPPORT;
	if (*ip4 == bpf_htonl(0x7f000001) || (*ip4 == 0 && j->n4 == 1)) {
		*ip4 = j->first4.w[3];
		return 0;
	}
	return *ip4 == 0 ? 0 : check(&a);
}

/* prison_local_ip6: the same for ::1 and ::. A socket that also is of IPv4 keeps
 * its ::, if there is IPv4. */
static __always_inline int local6(struct jail *j, struct address *a, int only)
{
	if (is_mapped(a))
		return local4(j, &a->w[3]);
	if (!j->n6)
		return EAFNOSUPPORT;
	if (is_loopback(a) || (is_any(a) && j->n6 == 1 && (only || !j->n4))) {
		*a = j->first6;
		return 0;
	}
	return is_any(a) ? 0 : check(a);
}

/* prison_remote_ip4: 127.0.0.1 is the jail's first address. So is 0.0.0.0, as in
 * in_pcbladdr of FreeBSD. On Linux all of 127.0.0.0/8 is the host's, and so all of it
 * is meant. */
static __always_inline int remote4(struct jail *j, __be32 *ip4)
{
	if (!j->n4)
		return EAFNOSUPPORT;
	if (*ip4 == 0 || (*ip4 & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000))
		*ip4 = j->first4.w[3];
	return 0;
}

/* prison_remote_ip6: the same for ::1, and for ::. */
static __always_inline int remote6(struct jail *j, struct address *a)
{
	if (is_mapped(a))
		return remote4(j, &a->w[3]);
	if (!j->n6)
		return EAFNOSUPPORT;
	if (is_any(a) || is_loopback(a))
		*a = j->first6;
	return 0;
}

static __always_inline struct address get6(struct bpf_sock_addr *ctx)
{
	return (struct address){ { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] } };
}

static __always_inline void set6(struct bpf_sock_addr *ctx, struct address *a)
{
	ctx->user_ip6[0] = a->w[0];
	ctx->user_ip6[1] = a->w[1];
	ctx->user_ip6[2] = a->w[2];
	ctx->user_ip6[3] = a->w[3];
}

/* prison_check_af, with the error that programs of Linux know for a kernel without
 * the family. Of protocols a jail has those whose every packet has a rule here. */
SEC("cgroup/sock_create")
int create(struct bpf_sock *ctx)
{
	struct jail *j = this_jail();

	if (!j)
		return fail(EPERM);
	if (!(ctx->family == AF_INET ? j->n4 : j->n6))
		return fail(EAFNOSUPPORT);
	if ((ctx->type == SOCK_STREAM && ctx->protocol == IPPROTO_TCP) ||
	    (ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP))
		return allow;
	return fail(EPROTONOSUPPORT);
}

/* Takes note of IPV6_V6ONLY, which bind6 cannot ask for. */
SEC("cgroup/setsockopt")
int options(struct bpf_sockopt *ctx)
{
	int *set = ctx->optval, *only;

	if (ctx->level != SOL_IPV6 || ctx->optname != IPV6_V6ONLY || !ctx->sk || (void *)(set + 1) > ctx->optval_end)
		return allow;
	only = bpf_sk_storage_get(&v6only, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!only)
		return refuse;
	*only = !!*set;
	return allow;
}

/* in_pcbbind_setup, with prison_local_ip4 */
SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	struct jail *j = this_jail();
	__be32 ip4 = ctx->user_ip4;
	int err;

	if (!j)
		return fail(EPERM);
	if ((err = local4(j, &ip4)))
		return fail(err);
	ctx->user_ip4 = ip4;
	return allow;
}

/* in6_pcbbind, with prison_local_ip6 */
SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	struct jail *j = this_jail();
	struct address a = get6(ctx);
	int err, *only;

	if (!j || !ctx->sk)
		return fail(EPERM);
	only = bpf_sk_storage_get(&v6only, ctx->sk, NULL, 0);
	if ((err = local6(j, &a, only ? *only : j->v6only)))
		return fail(err);
	set6(ctx, &a);
	return allow;
}

/* What source a socket without one gets: prison_get_ip4. */
struct sockaddr_in {
	__u16 family;
	__be16 port;
	__be32 ip4;
	__u8 zero[8];
};

struct sockaddr_in6 {
	__u16 family;
	__be16 port;
	__be32 flowinfo;
	struct address ip6;
	__u32 scope;
};

/* in_pcbladdr, with prison_remote_ip4 and prison_get_ip4 */
SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct jail *j = this_jail();
	struct sockaddr_in source = { .family = AF_INET };
	__be32 ip4 = ctx->user_ip4;
	int err;

	if (!j || !ctx->sk)
		return fail(EPERM);
	if ((err = remote4(j, &ip4)))
		return fail(err);
	ctx->user_ip4 = ip4;
	source.ip4 = j->first4.w[3];
	/* The kernel would choose the source of one that has a port already. */
	if (ctx->sk->src_ip4 == 0 && bpf_bind(ctx, (void *)&source, sizeof(source)))
		return fail(EADDRNOTAVAIL);
	return allow;
}

/* in6_pcbladdr, with prison_remote_ip6 and prison_get_ip6 */
SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct jail *j = this_jail();
	struct sockaddr_in6 source = { .family = AF_INET6 };
	struct address a = get6(ctx);
	int err;

	if (!j || !ctx->sk)
		return fail(EPERM);
	if ((err = remote6(j, &a)))
		return fail(err);
	set6(ctx, &a);
	source.ip6 = is_mapped(&a) ? j->first4 : j->first6;
	if ((ctx->sk->src_ip6[0] | ctx->sk->src_ip6[1] | ctx->sk->src_ip6[2] | ctx->sk->src_ip6[3]) == 0 &&
	    bpf_bind(ctx, (void *)&source, sizeof(source)))
		return fail(EADDRNOTAVAIL);
	return allow;
}

/* udp_output: as connect4, for one datagram. The source is the socket's or that of
 * IP_PKTINFO (ip(7)). */
SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct jail *j = this_jail();
	__be32 to = ctx->user_ip4, from = ctx->msg_src_ip4;
	int err;

	if (!j)
		return fail(EPERM);
	if ((err = remote4(j, &to)))
		return fail(err);
	if (from == 0)
		from = j->first4.w[3];
	if ((err = local4(j, &from)))
		return fail(err);
	ctx->user_ip4 = to;
	ctx->msg_src_ip4 = from;
	return allow;
}

/* udp6_output. What goes to a mapped address is sendmsg4's. */
SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct jail *j = this_jail();
	struct address to = get6(ctx), from;
	int err;

	if (!j)
		return fail(EPERM);
	from = (struct address){ { ctx->msg_src_ip6[0], ctx->msg_src_ip6[1], ctx->msg_src_ip6[2], ctx->msg_src_ip6[3] } };
	if (is_mapped(&to) || is_mapped(&from))
		return fail(EADDRNOTAVAIL);
	if ((err = remote6(j, &to)))
		return fail(err);
	if (is_any(&from))
		from = j->first6;
	if ((err = local6(j, &from, 1)))
		return fail(err);
	set6(ctx, &to);
	ctx->msg_src_ip6[0] = from.w[0];
	ctx->msg_src_ip6[1] = from.w[1];
	ctx->msg_src_ip6[2] = from.w[2];
	ctx->msg_src_ip6[3] = from.w[3];
	return allow;
}

/* Whether the address in a packet, which starts with its IP header, is the jail's.
 * The offsets are those of RFC 791 and RFC 8200. */
static __always_inline int own(struct __sk_buff *skb, int offset4, int offset6)
{
	struct address a;

	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		a = mapped(0);
		if (bpf_skb_load_bytes(skb, offset4, &a.w[3], 4))
			return refuse;
		break;
	case bpf_htons(ETH_P_IPV6):
		if (bpf_skb_load_bytes(skb, offset6, &a, 16))
			return refuse;
		break;
	default:
		return refuse;
	}
	return check(&a) ? refuse : allow;
}

/* in_pcblookup_hash_locked: prison_check_ip4 of the address that a packet is for */
SEC("cgroup_skb/ingress")
int ingress(struct __sk_buff *skb)
{
	return own(skb, 16, 24);
}

/* What no rule above has kept from having another source: ip_output of FreeBSD
 * needs none, since all its sockets pass in_pcbladdr. */
SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	return own(skb, 12, 8);
}

char _license[] SEC("license") = "Apache-2.0";
