//go:build amd64 || arm64

package escape

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fanout are attempts to take a neighbour's frames by joining its group.
var fanout = []attempt{
	{name: "the monitor's group", how: "PACKET_FANOUT with its number and mode", in: all, control: true, do: join(fanoutID | unix.PACKET_FANOUT_HASH<<16)},
	{name: "all groups", how: "PACKET_FANOUT with each of 65536 numbers", in: all, control: true, do: joinNumbers},
	{name: "all modes and flags", how: "UNIQUEID, ROLLOVER, DEFRAG, IGNORE_OUTGOING with the monitor's number", in: all, control: true, do: joinModes},
	{name: "a group's program", how: "PACKET_FANOUT_DATA with classic and extended BPF", in: all, do: groupProgram},
	{name: "join by io_uring", how: "SOCKET_URING_OP_SETSOCKOPT", in: all, control: true, do: joinByUring},
	{name: "join before binding, then bind", how: "the order in which the kernel does not look", in: all, do: joinFirst},
}

// stay holds a socket for some rounds of traffic without reading.
func stay() { time.Sleep(20 * tick) }

func join(arg int32) func(*attacker) error {
	return func(a *attacker) error {
		fd := a.bound()
		met := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, int(arg))
		stay()
		return then(said("join", met), a.peek(fd))
	}
}

func joinNumbers(a *attacker) error {
	fd := a.bound()
	var t tally
	for id := range 1 << 16 {
		t.add(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, id))
	}
	for id := fanoutID - 8; id < fanoutID+8; id++ { // each with a socket of its own
		other := a.bound()
		t.add(unix.SetsockoptInt(other, unix.SOL_PACKET, unix.PACKET_FANOUT, id))
		if id != fanoutID {
			unix.Close(other)
		}
	}
	stay()
	return then(t.met(), a.peek(fd))
}

func joinModes(a *attacker) error {
	fd := a.bound()
	var t tally
	for mode := range 256 {
		t.add(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, fanoutID|mode<<16))
		t.add(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, fanoutID|(mode|unix.PACKET_FANOUT_FLAG_ROLLOVER>>8)<<16))
		for _, flag := range []int{unix.PACKET_FANOUT_FLAG_ROLLOVER, unix.PACKET_FANOUT_FLAG_UNIQUEID, unix.PACKET_FANOUT_FLAG_DEFRAG, 0x4000} {
			t.add(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, fanoutID|(mode|flag)<<16))
			t.add(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, (mode|flag)<<16))
		}
	}
	stay()
	return then(t.met(), a.peek(fd))
}

func groupProgram(a *attacker) error {
	fd := a.bound()
	var t tally
	for _, mode := range []int{unix.PACKET_FANOUT_CBPF, unix.PACKET_FANOUT_EBPF} {
		t.add(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, 1|mode<<16))
	}
	prog := &unix.SockFprog{Len: 1, Filter: &everything[0]}
	t.add(setsockopt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, unsafe.Pointer(prog), unsafe.Sizeof(*prog)))
	t.add(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, 3))
	stay()
	if met := t.refused(); met == nil {
		return nil
	}
	return then(t.met(), a.peek(fd))
}

func joinByUring(a *attacker) error {
	fd, arg := a.bound(), int32(fanoutID|unix.PACKET_FANOUT_HASH<<16)
	met := uringSetsockopt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, &arg)
	stay()
	return then(said("join", met), a.peek(fd))
}

func joinFirst(a *attacker) error {
	fd := a.captive()
	met := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, fanoutID)
	a.bind(fd, "eth0")
	stay()
	return then(said("join", met), a.peek(fd))
}
