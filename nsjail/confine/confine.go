// Package confine holds the sockets of a cgroup to addresses, as FreeBSD's kernel
// does for jails that share the host's network: it is prison_local_ip4,
// prison_remote_ip4, prison_check_ip4 and their kin for IPv6, as eBPF programs of a
// cgroup (confine.bpf.c). It needs Linux 5.18, cgroup v2 and CONFIG_CGROUP_BPF.
//
// # The rules
//
//   - bind(2) to the wildcard address means the jail's address, if it has one of the
//     family only, and else any of the jail's; to 127.0.0.1 or ::1, the jail's first;
//     to another address that is not the jail's, EADDRNOTAVAIL.
//   - What connects leaves from the jail's first address if it was not bound. To
//     connect or send to 127.0.0.0/8, ::1 or the wildcard is to do so to the jail's first.
//   - Packets for other addresses never reach the jail's sockets, multicast and
//     broadcast too; nor do its own leave from other addresses.
//   - Without an address of a family there are no sockets of it (EAFNOSUPPORT), and
//     there are none but of TCP and UDP (EPROTONOSUPPORT).
//
// # Security considerations
//
// A socket belongs to the cgroup that it was made in, whoever uses it. The rules go
// when the cgroup is removed: kill what is in it first.
//
// 32-bit system calls do not pass the note that is taken of IPV6_V6ONLY; what a socket
// may do does not depend on it.
//
// Linux's wildcard sockets know nothing of jails: where a program of the host listens
// at the wildcard address, a jail cannot listen at the same port (EADDRINUSE), and the
// other way round where a jail has several addresses. FreeBSD would let both. Have the
// host's programs listen at addresses. And in a jail with several addresses a socket
// that was bound to the wildcard address cannot connect any more (EADDRNOTAVAIL): the
// kernel would choose its source. FreeBSD takes the first.
package confine
