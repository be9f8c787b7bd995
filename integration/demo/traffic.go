//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// sendTraffic sends everything that the demo is about, at the same time, and
// returns when all of it has arrived.
func (n *network) sendTraffic(ctx context.Context) error {
	parts := []func(context.Context) error{
		func(ctx context.Context) error { return fetchPages(ctx, n.web, n.db, n.bridge) },
		func(ctx context.Context) error { return askNames(ctx, n.db, n.web, n.noisy) },
		func(ctx context.Context) error { return sendBulk(ctx, n.noisy, n.peer) },
		n.sendToAll,
		n.sendOddFrames,
	}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { errs[i] = part(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// fetchPages gets pages from server over HTTP.
func fetchPages(ctx context.Context, server *host, clients ...*host) error {
	page := strings.Repeat("It works. ", 20_000)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, page)
	})}
	defer s.Close()
	for _, addr := range []netip.Addr{server.v4, server.v6} {
		l, err := server.listen(netip.AddrPortFrom(addr, 80))
		if err != nil {
			return err
		}
		go s.Serve(l)
		for _, client := range clients {
			if err := client.get(ctx, l.Addr().String(), len(page)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *host) get(ctx context.Context, addr string, size int) error {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return h.dial(ctx, network, nil, addr)
		},
	}
	defer transport.CloseIdleConnections()
	for range 5 {
		request, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/", nil)
		if err != nil {
			return err
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || len(body) != size {
			return fmt.Errorf("%s got %d of %d bytes from %s: %v", h.name, len(body), size, addr, err)
		}
	}
	return nil
}

// askNames sends queries in the manner of DNS to server and waits for answers.
func askNames(ctx context.Context, server *host, clients ...*host) error {
	for _, addr := range []netip.Addr{server.v4, server.v6} {
		conn, err := server.listenPacket(netip.AddrPortFrom(addr, 53))
		if err != nil {
			return err
		}
		defer conn.Close()
		go echo(conn)
		for _, client := range clients {
			if err := client.ask(ctx, conn.LocalAddr().String()); err != nil {
				return err
			}
		}
	}
	return nil
}

// echo sends every datagram back until conn is closed.
func echo(conn net.PacketConn) {
	buf := make([]byte, 512)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		conn.WriteTo(buf[:n], from)
	}
}

func (h *host) ask(ctx context.Context, addr string) error {
	conn, err := h.dial(ctx, "udp", nil, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	answer := make([]byte, 512)
	for i := range 50 {
		if _, err := fmt.Fprintf(conn, "where is host %d?", i); err != nil {
			return err
		}
		if _, err := conn.Read(answer); err != nil {
			return err
		}
	}
	return nil
}

// The bulk is paced, so that captures on a small machine can keep up:
// chunks of 64 KiB, one a millisecond.
const (
	bulkChunks = 250
	chunk      = 64 << 10
	pace       = time.Millisecond
)

// sendBulk sends a lot from one neighbour to another, over TCP with either
// version of IP, and in many small UDP datagrams.
func sendBulk(ctx context.Context, from, to *host) error {
	for _, addr := range []netip.Addr{to.v4, to.v6} {
		l, err := to.listen(netip.AddrPortFrom(addr, 9000))
		if err != nil {
			return err
		}
		received := make(chan int64, 1)
		go func() {
			conn, err := l.Accept()
			l.Close()
			if err != nil {
				received <- -1
				return
			}
			n, _ := io.Copy(io.Discard, conn)
			conn.Close()
			received <- n
		}()
		if err := from.send(ctx, "tcp", l.Addr().String(), bulkChunks, chunk); err != nil {
			l.Close()
			return err
		}
		if n := <-received; n != bulkChunks*chunk {
			return fmt.Errorf("%s got %d of %d bytes", to.name, n, bulkChunks*chunk)
		}
	}

	conn, err := to.listenPacket(netip.AddrPortFrom(to.v4, 9000))
	if err != nil {
		return err
	}
	defer conn.Close() // nobody reads; the datagrams are on the wire all the same
	return from.send(ctx, "udp", conn.LocalAddr().String(), 2000, 100)
}

// send writes so many chunks of so many bytes.
func (h *host) send(ctx context.Context, network, addr string, chunks, size int) error {
	conn, err := h.dial(ctx, network, nil, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	data := make([]byte, size)
	for range chunks {
		if _, err := conn.Write(data); err != nil {
			return err
		}
		if err := sleep(ctx, pace); err != nil {
			return err
		}
	}
	return nil
}

// sendToAll sends broadcasts and multicasts, and a datagram between link-local
// addresses.
func (n *network) sendToAll(ctx context.Context) error {
	for _, h := range []*host{n.web, n.noisy} {
		index, err := h.ifindex()
		if err != nil {
			return err
		}
		// The number, since package net remembers the interface names of
		// whichever namespace it met first.
		zone := fmt.Sprint(index)
		for from, to := range map[netip.Addr][]string{
			h.v4:   {"10.77.0.255:5353", "255.255.255.255:5353", "224.0.0.251:5353"},
			h.v6:   {"[ff02::fb%" + zone + "]:5353"},
			h.link: {"[ff02::1%" + zone + "]:5353", "[" + n.db.link.String() + "%" + zone + "]:53"},
		} {
			for _, addr := range to {
				local := &net.UDPAddr{IP: from.AsSlice()}
				if from == h.link {
					local.Zone = zone
				}
				if err := h.say(ctx, local, addr); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (h *host) say(ctx context.Context, local net.Addr, addr string) error {
	conn, err := h.dial(ctx, "udp", local, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	for i := range 10 {
		// Where nobody listens the refusal is traffic too.
		_, err := fmt.Fprintf(conn, "hello %d from %s", i, h.name)
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("%s to %s: %w", h.name, addr, err)
		}
		if err := sleep(ctx, pace); err != nil {
			return err
		}
	}
	return nil
}

// sendOddFrames injects what no socket sends: ARP and neighbour discovery
// between neighbours and about a jail, and frames of another VLAN that carry a
// jail's address.
func (n *network) sendOddFrames(context.Context) error {
	noisy, peer, web := n.noisy, n.peer, n.web
	from, to := netip.AddrPortFrom(noisy.v4, 7), netip.AddrPortFrom(web.v4, 7)
	return noisy.Inject("eth0",
		testutil.ARP(testutil.ARPReply, noisy.v4, peer.v4, testutil.MACOf(peer.v4)),
		testutil.ARP(testutil.ARPRequest, noisy.v4, peer.v4, testutil.BroadcastMAC),
		testutil.ARP(testutil.ARPReply, noisy.v4, web.v4, testutil.MACOf(web.v4)),
		testutil.NeighborSolicit(noisy.v6, peer.v6),
		testutil.NeighborAdvert(noisy.link, peer.link),
		testutil.NeighborAdvert(noisy.v6, web.v6),
		testutil.Tagged(testutil.UDP4(from, to, []byte("another network's 10.77.0.2")), 0x8100, 7),
		testutil.Tagged(testutil.Tagged(testutil.UDP4(from, to, nil), 0x8100, 7), 0x88a8, 8),
	)
}

// dial connects from the host's namespace. addr is numeric, so that package
// net makes the socket on the calling thread.
func (h *host) dial(ctx context.Context, network string, local net.Addr, addr string) (conn net.Conn, err error) {
	err = h.Do(func() error {
		conn, err = (&net.Dialer{LocalAddr: local, Timeout: 5 * time.Second}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

func (h *host) listen(at netip.AddrPort) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		return err
	})
	return l, err
}

func (h *host) listenPacket(at netip.AddrPort) (conn net.PacketConn, err error) {
	err = h.Do(func() error {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	return conn, err
}
