package broker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/loader"
)

// A connection is a client's.
type connection struct {
	*Server
	conn  *net.UnixConn
	about []any // whose it is, for the log
	asked []any // the same for what was asked for last

	peer      *Peer       // the client, if it was looked at just now; nil: it has to be
	namespace NamespaceID // the client's, when it asked for it

	ward  *ward // of the captive that it was given; nil: none yet
	given *holding
	vlans bpf.VLANs // those of its scope
}

// connected serves a connection to its end.
func (s *Server) connected(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := &connection{Server: s, conn: conn}
	looked := time.Now()
	peer, err := peerOf(conn)
	if err != nil {
		c.turnAway(Refuse(CodePeer, "%v", err))
		return
	}
	defer peer.Close()
	c.about = []any{"pid", peer.PID, "uid", peer.UID, "cgroup", peer.Cgroup}
	leave, err := s.enter(user{peer.UID, peer.NamespaceID})
	if err != nil {
		c.turnAway(err)
		return
	}
	defer leave()

	text, err := c.receive(patience)
	if time.Since(looked) < promptly { // as most ask
		c.peer = peer
	}
	for err == nil && c.turn(ctx, text) {
		c.peer = nil
		peer.Close()
		text, err = c.receive(c.waits())
	}
}

// turnAway refuses whatever the client wants. It takes that out of the queue, since
// closing a connection with something in it throws away the answer (ECONNRESET).
func (c *connection) turnAway(err error) {
	if _, failed := c.receive(lastWords); failed == nil {
		c.refuse(nil, err)
	}
}

// turn answers one message, and reports whether there may be another.
func (c *connection) turn(ctx context.Context, text []byte) bool {
	m, refusal := readMessage(text)
	if refusal != nil {
		c.refuse(nil, refusal)
		return false // who knows what else it takes for the protocol
	}
	ctx, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	if m.Op == opCapture {
		return c.capture(ctx, &m.Request)
	}
	return c.change(ctx, m)
}

// log is made when there is something to write: where a socket is given that is behind it.
func (c *connection) log() *slog.Logger { return c.Log.With(slices.Concat(c.about, c.asked)...) }

// waits is how long the client may say nothing.
func (c *connection) waits() time.Duration {
	if c.given == nil {
		return patience
	}
	return forever
}

// receive reads a message. There is no room for descriptors: the kernel drops
// what came with it, and nothing of it is ever open here (unix(7), SCM_RIGHTS).
func (c *connection) receive(within time.Duration) (text []byte, err error) {
	c.conn.SetReadDeadline(time.Now().Add(within))
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	err2 := raw.Read(func(fd uintptr) bool {
		text, err = receive(int(fd))
		return !errors.Is(err, unix.EAGAIN)
	})
	return text, errors.Join(err, err2)
}

// receive reads a message that is there. The buffer comes after the message:
// connections that wait, which may be many, have none.
func receive(fd int) ([]byte, error) {
	size, _, err := unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, err
	}
	if size == 0 { // also if the client sends nothing on purpose
		return nil, io.EOF
	}
	text := make([]byte, min(size, maxMessage+1))
	_, _, err = unix.Recvfrom(fd, text, unix.MSG_DONTWAIT)
	return text, err
}

// refuse says no, and writes it down.
func (c *connection) refuse(w *ward, err error) bool {
	var r *Refusal
	if !errors.As(err, &r) {
		r = Refuse(CodeGuard, "%v", err)
	}
	if w != nil {
		w.refused(r.Code)
	} else {
		c.mu.Lock()
		c.stray[r.Code]++
		c.mu.Unlock()
	}
	c.log().Warn("refused", "code", r.Code, "reason", r.Text)
	return c.send(&answer{Error: r}) == nil
}

// send sends an answer, with a descriptor if there is one.
func (c *connection) send(a *answer, fds ...int) error {
	a.Version = Version
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	c.conn.SetWriteDeadline(time.Now().Add(sendTime))
	n, _, err := c.conn.WriteMsgUnix(text, rights, nil)
	if err == nil && n < len(text) {
		err = io.ErrShortWrite
	}
	return err
}

// capture gives the client a captive socket.
func (c *connection) capture(ctx context.Context, r *Request) bool {
	if c.given != nil {
		return c.refuse(c.ward, Refuse(CodeMessage, "this connection has had its captive socket: make another"))
	}
	jail, err := c.jail()
	if err != nil {
		return c.refuse(nil, err)
	}
	w := c.Server.ward(jail)
	c.asked = []any{"jail", jail.Name, "interface", r.Interface}
	if err := c.give(ctx, jail, w, r); err != nil {
		jail.Namespace.Close()
		return c.refuse(w, err)
	}
	c.restock(jail, r)
	return true
}

// restock has spares made like the socket that was given.
func (c *connection) restock(jail *Jail, r *Request) {
	c.ward.restock(jail, c.kind(r), loader.CaptiveConfig{
		Namespace: jail.Namespace, Scope: c.ward.scopeNow(), Datagram: c.given.LinkType() != bpf.Ethernet,
		RingBytes: r.Ring, Immediate: r.Immediate, Label: c.label(jail.Name),
	}, c.Captives.Prepare)
}

func (c *connection) kind(r *Request) kind {
	return kind{c.namespace, r.Interface, r.Ring, r.Immediate}
}

// jail finds whose the client is, as it is now.
func (c *connection) jail() (*Jail, error) {
	peer := c.peer
	if peer == nil {
		var err error
		if peer, err = peerOf(c.conn); err != nil {
			return nil, Refuse(CodePeer, "%v", err)
		}
		defer peer.Close()
	}
	c.namespace = peer.NamespaceID
	jail, err := c.Resolve(peer)
	if r := (*Refusal)(nil); err != nil && !errors.As(err, &r) {
		return nil, Refuse(CodePeer, "%v", err)
	}
	return jail, err
}

// give makes the socket and sends it. Where it fails nothing is left.
func (c *connection) give(ctx context.Context, jail *Jail, w *ward, r *Request) (err error) {
	if err := w.admits(jail, r); err != nil {
		return err
	}
	if err := w.reserve(r.Ring); err != nil {
		return err
	}
	h, err := c.make(ctx, jail, w, r)
	if err != nil {
		w.cancel(r.Ring)
		return err
	}
	if err := c.handOver(ctx, h, w, r); err != nil {
		w.drop(h)
		return errors.Join(err, h.Revoke(), h.Close())
	}
	c.ward, c.given = w, h
	return nil
}

// make makes the socket, with the scope of this moment.
func (c *connection) make(ctx context.Context, jail *Jail, w *ward, r *Request) (*holding, error) {
	scope, changes, err := w.current(ctx)
	if err != nil {
		return nil, err
	}
	captive, err := c.fromSpare(w, scope, r)
	if captive == nil && err == nil {
		captive, err = c.captive(jail, scope, r)
	}
	if errors.Is(err, unix.EMFILE) && c.dropSpares() {
		captive, err = c.captive(jail, scope, r)
	}
	if unknown := (*loader.InterfaceError)(nil); errors.As(err, &unknown) {
		return nil, Refuse(CodeInterface, "%v", unknown)
	}
	if errors.Is(err, unix.EMFILE) { // each socket takes some 12 here
		return nil, Refuse(CodeLimit, "the broker has no descriptors left for another socket (ulimit -n, LimitNOFILE=)")
	}
	if err != nil {
		return nil, Refuse(CodeGuard, "%v", err)
	}
	h := &holding{Captive: captive, ring: r.Ring}
	if err := w.join(h, changes); err != nil {
		captive.Close()
		return nil, Refuse(CodeScope, "%v", err)
	}
	c.vlans = scope.VLANs
	return h, nil
}

// fromSpare makes a socket of a spare; nil: there is none that would do.
func (c *connection) fromSpare(w *ward, scope bpf.Scope, r *Request) (Captive, error) {
	s := w.takeSpare(c.kind(r))
	if s == nil {
		return nil, nil
	}
	captive, err := s.Captive(r.Interface, scope.Addrs)
	if errors.Is(err, errors.ErrUnsupported) { // more addresses than then, or another interface of that name
		return nil, nil
	}
	return captive, err
}

func (c *connection) captive(jail *Jail, scope bpf.Scope, r *Request) (Captive, error) {
	return c.Captives.Captive(loader.CaptiveConfig{
		Namespace: jail.Namespace, Scope: scope, Interface: r.Interface, Datagram: r.Datagram,
		RingBytes: r.Ring, Immediate: r.Immediate, Label: c.label(jail.Name),
	})
}

// handOver sets the filter, sends the socket and lets go of it.
func (c *connection) handOver(ctx context.Context, h *holding, w *ward, r *Request) error {
	var rest Rest
	var length int
	if !r.Filter.everything() { // which it is already
		var err error
		if rest, length, err = c.setFilter(ctx, h, w, &r.Filter); err != nil {
			return err
		}
	}
	now := w.scopeNow()
	g := &Grant{Cookie: h.Cookie(), Interface: r.Interface, Ifindex: h.Index(), LinkType: h.LinkType().FileNumber(), Ring: r.Ring,
		Jail: w.name, Scope: w.scope.Describe(now), Policy: now.Policy.String(), Rest: rest}
	if err := c.send(&answer{Grant: g}, h.FD()); err != nil {
		return err
	}
	w.given()
	c.log().Info("captive given", "cookie", g.Cookie, "ifindex", g.Ifindex, "ring", g.Ring, "filter", length, "scope", g.Scope)
	return h.Release()
}

// change does what a client may ask about the socket that it has.
func (c *connection) change(ctx context.Context, m *message) bool {
	if c.given == nil {
		return c.refuse(nil, Refuse(CodeMessage, "%s is about a captive socket, and this connection has none", m.Op))
	}
	if err := c.ward.inTime(); err != nil {
		return c.refuse(c.ward, err)
	}
	a, err := c.answer(ctx, m)
	if err != nil {
		return c.refuse(c.ward, err)
	}
	return c.send(a) == nil
}

func (c *connection) answer(ctx context.Context, m *message) (*answer, error) {
	switch m.Op {
	case opStats:
		s, err := c.given.Stats()
		return &answer{Stats: &s}, err
	case opClear:
		return &answer{Rest: &Rest{}}, c.given.ClearFilter()
	}
	rest, length, err := c.setFilter(ctx, c.given, c.ward, &m.Filter)
	if err == nil {
		c.log().Info("filter set", "cookie", c.given.Cookie(), "filter", length)
	}
	return &answer{Rest: &rest}, err
}
