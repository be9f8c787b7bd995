package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	cilium "github.com/cilium/ebpf"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// forget takes sockets that are no more out of the list of captives: those
// whose program is no more, which nothing but the socket keeps. left is how many
// there are in each namespace.
func (g *guards) forget() (left map[uint64]int, err error) {
	left = map[uint64]int{}
	var gone []uint64
	var cookie uint64
	var socket guardCaptive
	entries := g.Captives.Iterate()
	for entries.Next(&cookie, &socket) {
		if isGoneProgram(cilium.ProgramID(socket.Program)) {
			gone = append(gone, cookie)
			continue
		}
		left[socket.Netns]++
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("list captive sockets: %w", err)
	}
	for _, cookie := range gone {
		os.Remove(g.pinOfSlot(cookie))
		g.Captives.Delete(cookie) // if it fails it is tried again
	}
	return left, nil
}

// isGoneProgram reports whether a program is no more, for certain.
func isGoneProgram(id cilium.ProgramID) bool {
	program, err := cilium.NewProgramFromID(id)
	if err == nil {
		program.Close()
	}
	return errors.Is(err, os.ErrNotExist)
}

func (c *captive) alive() bool { return !isGoneProgram(c.program) }

// settle waits for sockets that were closed just now to be no more, as far as
// there are any: the kernel takes a grace period or two.
func (g *guards) settle() error {
	for range 20 {
		left, err := g.forget()
		if err != nil || len(left) == 0 {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// packetSockets asks sock_diag(7): struct packet_diag_req and packet_diag_msg
// of linux/packet_diag.h.
func packetSockets(ns Namespace) (map[uint64]bool, error) {
	alive := map[uint64]bool{}
	err := ns.Do(func() error {
		const sockDiagByFamily, requestLen, cookieOff = 20, 20, 8
		req := nl.NewNetlinkRequest(sockDiagByFamily, unix.NLM_F_DUMP)
		req.AddRawData(append([]byte{unix.AF_PACKET}, make([]byte, requestLen-1)...))
		answers, err := req.Execute(unix.NETLINK_SOCK_DIAG, 0)
		for _, a := range answers {
			if len(a) >= cookieOff+8 {
				low, high := binary.NativeEndian.Uint32(a[cookieOff:]), binary.NativeEndian.Uint32(a[cookieOff+4:])
				alive[uint64(high)<<32|uint64(low)] = true
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list packet sockets (CONFIG_PACKET_DIAG): %w", err)
	}
	return alive, nil
}

// A namespaceFile is a namespace that is kept open.
type namespaceFile struct{ *os.File }

// Do does something inside, on a thread that ends with it.
func (ns namespaceFile) Do(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread is in another place now
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}
