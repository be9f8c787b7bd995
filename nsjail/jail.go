// Package nsjail finds jails that are network namespaces: it enters them, and
// tells their addresses, once or as they change.
//
// # Security considerations
//
// The addresses of a namespace are what its administrator gave it. Who holds
// CAP_NET_ADMIN inside can take any address there, a neighbour's too, and a
// scope that follows the namespace follows that. Where the inside is not
// trusted with its addresses, name them instead.
//
// A Jail holds the namespace: while it is open the namespace and its
// interfaces stay, also when its name and its last process are gone.
//
// # FreeBSD
//
// There a Jail is one of jail(8). It is known by its number and not held: when
// it is removed its addresses are an error, also if there is another one of the
// same name. Those of a jail with a network stack of its own (vnet), or with all
// of the host's, are not known from outside.
package nsjail

import (
	"context"
	"net/netip"
	"os"
)

// A Jail is a network namespace, held open. Its methods may be called from
// several goroutines at once.
type Jail struct {
	file *os.File // the namespace, for setns(2); nil on FreeBSD
	name string   // for messages
	id   ID
}

// ID is what makes a namespace the same as another: the device and inode
// number of its file (namespaces(7)). A name can be given to another namespace
// and a pid to another process while an ID cannot, as long as a Jail holds it.
type ID struct{ Dev, Ino uint64 }

// OpenNamespace finds a jail by a name as ip-netns(8) gives them, which is a
// file in /run/netns, or, if there is a slash in it, by the path of such a
// file. If there is none, the error names those that exist and wraps
// fs.ErrNotExist. On FreeBSD it is the name or the number of a jail.
func OpenNamespace(nameOrPath string) (*Jail, error) { return openNamespace(nameOrPath) }

// OpenPID finds the jail that a process is in. For processes of other users
// it needs CAP_SYS_PTRACE. If there is no such process, the error wraps
// fs.ErrNotExist.
func OpenPID(pid int) (*Jail, error) { return openPID(pid) }

// String says which jail it is, for messages.
func (j *Jail) String() string { return j.name }

// ID tells jails apart; two of the same namespace have the same ID.
func (j *Jail) ID() ID { return j.id }

// Close lets go of the namespace.
func (j *Jail) Close() error {
	if j.file == nil { // FreeBSD
		return nil
	}
	return j.file.Close()
}

// Do runs f in the namespace, on a thread of its own, and returns f's error. It
// needs CAP_SYS_ADMIN (setns(2)). Sockets that f makes stay in the namespace;
// goroutines that f starts run outside. A panic in f goes on in the caller, with
// the same value, and so does runtime.Goexit.
func (j *Jail) Do(f func() error) error { return j.do(f) }

// Addresses are the addresses of all interfaces in the namespace, sorted,
// each as a prefix of one address. Loopback addresses (127.0.0.0/8 and ::1) are
// not among them, since every namespace has its own; link-local ones are.
// IPv6 addresses that are still tentative (RFC 4862) count, those that turned
// out to be somebody else's do not.
func (j *Jail) Addresses() ([]netip.Prefix, error) { return j.addresses() }

// Watch calls report with the addresses as they are now, and then again
// whenever they have changed, until ctx ends, when it returns nil. A change is
// reported at once; further ones within 20 ms of it are put together. On FreeBSD
// changes are looked for every second. Calls of report do not overlap.
func (j *Jail) Watch(ctx context.Context, report func([]netip.Prefix)) error {
	return j.watch(ctx, report)
}
