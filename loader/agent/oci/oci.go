// Package oci gives containers captive sockets. Their runtimes (runc, crun)
// pass the listener of a container's seccomp filter to a socket that the filter's
// profile names: linux.seccomp.listenerPath of the OCI runtime specification,
// config-linux.md. A Server takes it there and serves it as package agent does for
// commands; Merge makes the profile.
//
// # Security considerations
//
// Runtimes are believed, processes in containers are not. What comes over the
// socket was written by a runtime, which only root's are let to do, out of the
// container's configuration. Nothing of it is the container's own word. What a
// container may see is decided by the caller's Server.Fleet, of this alone and of
// the network namespace.
//
// Which one that is, is not taken from the process number in the message, which
// may be another process's by the time it is read (and which crun, as of 1.8.1,
// leaves 0 when it executes a process in a container). It is that of the thread
// that first asks for a packet socket, which the kernel names and which waits
// meanwhile. Threads in other namespaces are refused from then on: as with any
// socket, what one can get is of the namespace that one is in. Refused are at any
// time those in network namespaces of other user namespaces than the Server's, which
// a container may make for itself, and fill with interfaces.
//
// As with package agent the filter is not the boundary. That is that the container
// has no CAP_NET_RAW, which is the business of whoever configures it. A thread that
// has it all the same is refused, so that nobody takes it for confined.
package oci

import (
	"context"
	"log/slog"
	"net"

	"jailtap/loader/agent"
)

// DefaultListener is the socket's usual path.
const DefaultListener = "/run/jailtap/oci.sock"

// A Container is what a runtime tells of one, and where it is.
type Container struct {
	ID          string
	Annotations map[string]string // of its config.json
	Metadata    string            // listenerMetadata of its seccomp profile

	// Namespace is a path of the network namespace that it is in, which leads
	// there as long as Fleet has not returned.
	Namespace string
}

// A Server serves containers. It needs what agent.Serve does.
type Server struct {
	// Fleet finds what makes a container's captive sockets, in its namespace,
	// when the first is asked for. Processes that are executed in the same container
	// later share it: those for which nothing in Container differs, nor the
	// namespace. release is called when the last of them has ended. After an error
	// packet sockets are EPERM. Calls of Fleet and of release do not overlap.
	Fleet func(Container) (captives agent.Captives, release func(), err error)

	Log *slog.Logger // nil: slog.Default(); one line for each process that comes and goes

	// MaxCaptives is how many captive sockets there may be at once for one
	// listener, which is a container or a process executed in it later; 0: 256.
	MaxCaptives int

	server
}

// Listen makes the socket, for root and the caller's user only, in place of one
// that nobody listens to any more, and its directory if that is what is missing.
func Listen(path string) (*net.UnixListener, error) { return listen(path) }

// Serve serves runtimes that connect to l, until ctx ends, when it returns nil
// and containers lose their listeners: calls of theirs that would be held back are
// ENOSYS then. It closes l. What a runtime sends does not end it.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error { return s.serve(ctx, l) }
