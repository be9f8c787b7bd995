//go:build ignore

// Two other ways to make a packet cost the same whatever the number of captures that it
// does not concern, to be measured beside the loader's hub. docs/HUB.md says what they
// cannot do.

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define ETHER_IPV4 0x0800
#define ETHER_LEN 14
#define ADDRESSES 12 /* offset in bytes into the IPv4 header; source and destination */

#define TCX_NEXT -1

/* IPv4 address, network order: number of a socket in a group, or of a tap device. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u32);
} places SEC(".maps");

/* place is where a frame with these addresses goes; 0: it concerns nobody. */
static __always_inline __u32 place(const __u32 *pair)
{
	__u32 *to = bpf_map_lookup_elem(&places, &pair[0]);

	if (!to)
		to = bpf_map_lookup_elem(&places, &pair[1]);
	return to ? *to : 0;
}

/* choose says which socket of a group (PACKET_FANOUT_EBPF) gets the frame. The first
 * one is there to throw frames away. */
SEC("socket")
int choose(struct __sk_buff *skb)
{
	__u32 pair[2];

	if (skb->protocol != bpf_htons(ETHER_IPV4) ||
	    bpf_skb_load_bytes_relative(skb, ADDRESSES, pair, sizeof(pair), BPF_HDR_START_NET))
		return 0;
	return place(pair);
}

/* copy sends a copy of the frame out of a tap device. */
SEC("tc")
int copy(struct __sk_buff *skb)
{
	__u32 pair[2], to;

	if (skb->protocol != bpf_htons(ETHER_IPV4) || bpf_skb_load_bytes(skb, ETHER_LEN + ADDRESSES, pair, sizeof(pair)))
		return TCX_NEXT;
	to = place(pair);
	if (to)
		bpf_clone_redirect(skb, to, 0);
	return TCX_NEXT;
}

char _license[] SEC("license") = "Apache-2.0";
