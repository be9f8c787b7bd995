//go:build amd64 || arm64

package escape

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// sending are the ways to put a frame on a wire, on interfaces of three kinds,
// and on interfaces that come later.
var sending = []attempt{
	byWay("send(2)", "on a bound socket", sendBound),
	byWay("sendto(2)", "with an address", sendTo),
	byWay("sendmsg(2) with control messages", "SO_MARK, else SO_PRIORITY", sendControl),
	byWay("sendmmsg(2)", "four at once", sendMany),
	byWay("write(2)", "", write),
	byWay("writev(2)", "in two parts", writeParts),
	byWay("pwritev2(2), pwrite(2)", "at offsets", writeAtOffset),
	byWay("splice(2)", "out of a pipe", splice),
	byWay("vmsplice(2)", "own pages through a pipe", vmsplice),
	byWay("sendfile(2)", "out of a file in memory", sendfile),
	{name: "copy_file_range(2)", how: "out of a file in memory", in: both, do: send(copyRange)},
	byWay("MSG_ZEROCOPY", "pages of the sender's", zerocopy),
	byWay("every flag of send(2)", "31 bits, one by one", oddFlags),
	byWay("after connect(2) and shutdown(2)", "SHUT_RD", connected),
	byWay("io_submit(2)", "IOCB_CMD_PWRITE", asynchronous),
	byWay("io_uring: send", "IORING_OP_SEND", uringWay(opSend)),
	byWay("io_uring: sendmsg", "IORING_OP_SENDMSG", uringSendmsg),
	{name: "io_uring: without copying", how: "IORING_OP_SEND_ZC", in: both, do: send(uringWay(opSendZC))},
	byWay("io_uring: write", "IORING_OP_WRITE", uringWay(opWrite)),
	byWay("io_uring: writev", "IORING_OP_WRITEV", uringWritev),
	byWay("io_uring: splice", "IORING_OP_SPLICE", uringSplice),
	byWay("past the queueing discipline", "PACKET_QDISC_BYPASS, then send", pastQdisc),
	byWay("a send ring", "PACKET_TX_RING", byTXRing),
	byWay("with a header of virtio", "PACKET_VNET_HDR, then send", withVnetHeader),
	{name: "a datagram socket", how: "SOCK_DGRAM: the kernel makes the header", in: both, control: true, do: sendDatagram},
	{name: "frames of every size", how: "0 to 64 KB", in: both, do: sendSizes},
	{name: "from many threads", how: "8 threads with 500 frames each", in: both, control: true, do: sendThreads},
	{name: "on an interface that has just appeared", how: "sends without pause while it is made", in: both, control: true, do: sendLater("later")},
	{name: "on an interface that was moved here", how: "made in another namespace", in: both, control: true, do: sendLater("moved")},
	{name: "on an upper interface", how: "a macvlan upon one that is guarded", in: both, control: true, do: sendOn("upper0")},
}

// byWay is an attempt that works on a plain socket.
func byWay(name, how string, w way) attempt {
	if how == "" {
		how = "on a bound socket"
	}
	return attempt{name: name, how: how, in: both, control: true, do: send(w)}
}

func send(w way) func(*attacker) error {
	return func(a *attacker) error { return a.transmit(a.captive(), w) }
}

func sendDatagram(a *attacker) error {
	fd := a.socket(unix.SOCK_DGRAM)
	return a.transmit(fd, func(fd, ifindex int, frame []byte) error { return sendTo(fd, ifindex, frame[14:]) })
}

func sendSizes(a *attacker) error {
	fd := a.captive()
	return a.transmit(fd, func(fd, ifindex int, frame []byte) error {
		var errs []error
		for size := 0; size < 1<<16; size = size*2 + 1 {
			errs = append(errs, sendBound(fd, ifindex, append(frame, make([]byte, size)...)), sendBound(fd, ifindex, frame[:min(size, len(frame))]))
		}
		return firstOf(errs)
	})
}

func sendThreads(a *attacker) error {
	fd := a.captive()
	a.bind(fd, "eth0")
	var mu sync.Mutex
	var t tally
	var threads sync.WaitGroup
	for range 8 {
		threads.Go(func() {
			for range 500 {
				err := sendBound(fd, 0, a.frame())
				mu.Lock()
				t.add(err)
				mu.Unlock()
			}
		})
	}
	threads.Wait()
	return t.met()
}

// sendLater sends to all numbers that the next interfaces may have while they are
// made.
func sendLater(kind string) func(*attacker) error {
	return func(a *attacker) error {
		fd, there := a.captive(), interfaces()
		made := make(chan struct{})
		go func() {
			defer close(made)
			for range 8 {
				a.ask("interface", kind)
			}
		}()
		var t tally
		for running := true; running; {
			select {
			case <-made:
				running = false
			default:
			}
			for i := 1; i < slices.Max(there)+64; i++ {
				if slices.Contains(there, i) {
					continue
				}
				if err := sendTo(fd, i, a.frame()); !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENETDOWN) {
					t.add(err)
				}
			}
		}
		if len(t.names) == 0 {
			broken("no interface was there to send on")
		}
		return t.met()
	}
}

func sendOn(ifname string) func(*attacker) error {
	return func(a *attacker) error {
		var t tally
		fd := a.captive()
		for _, w := range []way{sendBound, sendTo, write} {
			t.add(a.transmitOn(fd, ifname, w))
		}
		return fmt.Errorf("%w", t.met())
	}
}
